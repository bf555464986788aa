-- Another plan, price or add-ons: at the next renewal, or in the middle of the running term.

-- What a change changes and gives back: plan, own price and add-ons.
CREATE FUNCTION prepaid.subscription_state(subscription bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('plan_id', s.plan_id, 'price', s.price, 'addons', coalesce(
        (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.addon_id) FROM prepaid.subscription_addons a
         WHERE a.subscription_id = subscription), '[]'))
    FROM prepaid.subscriptions s WHERE s.subscription_id = subscription;
$$;

CREATE FUNCTION prepaid.set_subscription_state(subscription bigint, state jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    before text := prepaid.addon_codes(subscription);
BEGIN
    UPDATE prepaid.subscriptions SET plan_id = (state ->> 'plan_id')::bigint,
        price = (state ->> 'price')::numeric
    WHERE subscription_id = subscription;
    DELETE FROM prepaid.subscription_addons a
    WHERE a.subscription_id = subscription AND NOT EXISTS (
        SELECT FROM jsonb_array_elements(state -> 'addons') e WHERE (e ->> 'addon_id')::bigint = a.addon_id);
    INSERT INTO prepaid.subscription_addons
    SELECT r.* FROM jsonb_array_elements(state -> 'addons') e
    CROSS JOIN LATERAL jsonb_populate_record(NULL::prepaid.subscription_addons, e) r
    ON CONFLICT DO NOTHING;
    -- The table of add-ons has no audit trigger of its own: the change belongs to the subscription.
    IF before <> prepaid.addon_codes(subscription) THEN
        INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
        VALUES ('subscription_changed', 'subscription', subscription,
                format('addons: %s -> %s', before, prepaid.addon_codes(subscription)),
                prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    END IF;
END $$;

CREATE FUNCTION prepaid.addon_codes(subscription bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(string_agg(a.addon_code, ';' ORDER BY a.addon_code), 'none')
    FROM prepaid.subscription_addons JOIN prepaid.addons a USING (addon_id)
    WHERE subscription_id = subscription;
$$;

-- A change of plan that was cancelled before it began: the subscription gets back what it had, unless
-- somebody has given it something else since.
CREATE FUNCTION prepaid.take_back_change(plan bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    asked record;
BEGIN
    SELECT * INTO asked FROM prepaid.requests WHERE service_plan_id = plan AND kind = 'change'
    ORDER BY request_id DESC LIMIT 1;
    IF prepaid.subscription_state(asked.subscription_id) = asked.after THEN
        PERFORM prepaid.set_subscription_state(asked.subscription_id, asked.before);
    END IF;
END $$;

-- The state that is asked for. Raises what cannot be sold: a plan or add-on that does not exist, or
-- has no price in the customer's currency for that term.
CREATE FUNCTION prepaid.asked_state(
    subscription bigint, new_plan text, new_price numeric, new_addons text[], starts date
) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    s record;
    l record;
    own_price numeric;
    bad text;
    addons jsonb;
BEGIN
    SELECT sub.*, c.currency, m.exponent INTO STRICT s
    FROM prepaid.subscriptions sub JOIN prepaid.customers c USING (customer_id)
    JOIN prepaid.currencies m USING (currency)
    WHERE sub.subscription_id = subscription;
    SELECT * INTO l FROM prepaid.plans WHERE plan_code = new_plan;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no plan %', new_plan;
    END IF;
    -- The own price was agreed for the plan of now; another plan comes at its list price.
    own_price := coalesce(new_price, CASE WHEN l.plan_id = s.plan_id THEN s.price END);
    IF own_price < 0 OR own_price >= 'Infinity' OR own_price <> round(own_price, s.exponent) THEN
        RAISE EXCEPTION 'the price % is none in %: expected 0 or more with at most % decimals',
            own_price, s.currency, s.exponent;
    ELSIF own_price IS NULL AND NOT EXISTS (
        SELECT FROM prepaid.plan_price_periods WHERE plan_id = l.plan_id AND currency = s.currency
          AND price IS NOT NULL AND starts >= valid_from AND starts < valid_until) THEN
        RAISE EXCEPTION 'plan % has no price in % on %: name one with --price, or import plans.csv',
            new_plan, s.currency, starts;
    END IF;
    SELECT string_agg(DISTINCT code, ', ') INTO bad FROM unnest(new_addons) code
    WHERE NOT EXISTS (SELECT FROM prepaid.addons a WHERE a.addon_code = code);
    IF bad IS NOT NULL THEN
        RAISE EXCEPTION 'there is no add-on %', bad;
    END IF;
    -- An add-on that stays keeps its row, with the quantity that it has.
    SELECT coalesce(jsonb_agg(coalesce(to_jsonb(known), jsonb_build_object(
               'subscription_id', subscription, 'addon_id', a.addon_id, 'quantity', 1)) ORDER BY a.addon_id), '[]'),
           string_agg(a.addon_code, ', ' ORDER BY a.addon_code) FILTER (
               WHERE a.recurring AND NOT EXISTS (
                   SELECT FROM prepaid.addon_price_periods ap
                   WHERE ap.addon_id = a.addon_id AND ap.currency = s.currency
                     AND ap.term_months = l.term_months AND ap.term_days = l.term_days
                     AND starts >= ap.valid_from AND starts < ap.valid_until))
    INTO addons, bad
    FROM prepaid.addons a
    LEFT JOIN prepaid.subscription_addons known
        ON known.addon_id = a.addon_id AND known.subscription_id = subscription
    WHERE CASE WHEN new_addons IS NULL THEN known.addon_id IS NOT NULL
          ELSE a.addon_code = ANY (new_addons) END;
    IF bad IS NOT NULL THEN
        RAISE EXCEPTION 'no price in % for a term of plan %: add-on %; leave it out with --addons, or '
            'import addons.csv', s.currency, new_plan, bad;
    END IF;
    RETURN jsonb_build_object('plan_id', l.plan_id, 'price', own_price, 'addons', addons);
END $$;

-- Changes the plan of a subscription for the person who is acting: at the next
-- renewal (on_date null), or on a day inside the running term. Then a plan of kind change is
-- opened; when it is paid, step 8 cuts the running term where it starts. Returns the plan that was
-- opened, or the waiting renewal that the change meets.
CREATE FUNCTION prepaid.change_plan(
    subscription bigint, new_plan text, new_price numeric, new_addons text[], on_date date, why text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('change plans', why);
    today date := prepaid.today();
    s record;
    running record;
    waiting record;
    later record;
    before jsonb;
    after jsonb;
    opened bigint;
BEGIN
    PERFORM take_lock('payment matching');
    SELECT sub.*, c.currency INTO STRICT s
    FROM prepaid.subscriptions sub JOIN prepaid.customers c USING (customer_id)
    WHERE sub.subscription_id = subscription FOR NO KEY UPDATE OF sub;
    PERFORM FROM prepaid.service_plans p WHERE p.subscription_id = subscription
    ORDER BY p.service_plan_id DESC FOR NO KEY UPDATE;
    PERFORM prepaid.lock_tasks_of(s.customer_id);
    SELECT p.* INTO waiting FROM prepaid.service_plans p
    WHERE p.subscription_id = subscription AND p.status IN ('Pending', 'Processing')
    ORDER BY p.kind = 'change' DESC, p.service_plan_id DESC LIMIT 1;
    SELECT p.* INTO running FROM prepaid.service_plans p
    WHERE p.subscription_id = subscription AND p.status = 'Active'
      AND p.start_date <= coalesce(on_date, today) AND p.end_date > coalesce(on_date, today);
    before := prepaid.subscription_state(subscription);
    after := prepaid.asked_state(subscription, new_plan, new_price, new_addons,
                                 coalesce(on_date, running.end_date, today));

    IF after = before THEN
        RAISE EXCEPTION 'subscription % already has that plan, price and add-ons', s.subscription_ref;
    ELSIF waiting.kind = 'change' THEN
        RAISE EXCEPTION 'service plan % changes subscription % already, from % on: cancel it first',
            waiting.service_plan_id, s.subscription_ref, waiting.planned_start;
    END IF;
    IF on_date IS NOT NULL THEN
        SELECT p.* INTO later FROM prepaid.service_plans p
        WHERE p.subscription_id = subscription AND p.activated_on IS NOT NULL
          AND p.start_date >= running.end_date LIMIT 1;
        IF on_date < today THEN
            RAISE EXCEPTION '% has passed: a plan can be changed from today on, %', on_date, today;
        ELSIF running.service_plan_id IS NULL THEN
            RAISE EXCEPTION 'no term of subscription % runs on %: change it at the renewal instead',
                s.subscription_ref, on_date;
        ELSIF running.start_date = on_date THEN
            RAISE EXCEPTION 'the term of subscription % starts on %: change it from the next day on, or '
                'cancel it at once (all of it is refunded) and buy again', s.subscription_ref, on_date;
        ELSIF s.cancelled_on IS NOT NULL THEN
            RAISE EXCEPTION 'subscription % is cancelled as of %: undo that first (import '
                'subscriptions.csv), or wait for the end', s.subscription_ref, s.cancelled_on;
        ELSIF later.service_plan_id IS NOT NULL THEN
            RAISE EXCEPTION 'the next term (service plan %, % to %) is already paid: change it from % on, '
                'or cancel it at once first (all of it is refunded)', later.service_plan_id,
                later.start_date, later.end_date, later.start_date + 1;
        ELSIF running.origin = 'pipeline' AND NOT EXISTS (
            SELECT FROM prepaid.invoices i
            WHERE i.service_plan_id = running.service_plan_id AND i.status = 'Paid') THEN
            RAISE EXCEPTION 'the payment of the running term (service plan %) was reversed: clear that '
                'up first', running.service_plan_id;
        ELSIF running.currency <> s.currency THEN
            RAISE EXCEPTION 'the running term is in %, subscription % now in %: change it at the renewal',
                running.currency, s.subscription_ref, s.currency;
        END IF;
        PERFORM prepaid.require_standing_payments(ARRAY[running.service_plan_id]);
        -- Says now what step 4 would fail for: a tax rate that is not known.
        PERFORM prepaid.unused_credit(running.service_plan_id, on_date, today);
    END IF;
    PERFORM prepaid.set_subscription_state(subscription, after);
    -- Step 0 may be opening the renewal at this moment: then the insert waits for it, does nothing, and
    -- the renewal is there to be cancelled.
    FOR attempt IN 1..3 LOOP
        EXIT WHEN on_date IS NULL OR opened IS NOT NULL;
        PERFORM prepaid.cancel_waiting_plan(p.service_plan_id, why) FROM prepaid.service_plans p
        WHERE p.subscription_id = subscription AND p.status IN ('Pending', 'Processing');
        INSERT INTO prepaid.service_plans (
            subscription_id, customer_id, plan_id, previous_plan_id, origin, kind, status, start_date,
            end_date, planned_start, anchor_date, term_months, term_days, opened_on, currency)
        SELECT subscription, s.customer_id, l.plan_id, running.service_plan_id, 'pipeline', 'change',
               'Pending', on_date, prepaid.term_end(on_date, on_date, l.term_months, l.term_days),
               on_date, on_date, l.term_months, l.term_days, today, s.currency
        FROM prepaid.plans l WHERE l.plan_id = (after ->> 'plan_id')::bigint
        ON CONFLICT DO NOTHING
        RETURNING service_plan_id INTO opened;
    END LOOP;
    IF on_date IS NOT NULL AND opened IS NULL THEN
        RAISE EXCEPTION 'another service plan followed % at this moment: check, and try again',
            running.service_plan_id;
    END IF;
    INSERT INTO prepaid.requests (kind, subscription_id, service_plan_id, asked_on, effective_on, note,
                                  asked_by, before, after)
    VALUES ('change', subscription, opened, today, on_date, why, person, before, after);
    -- A price that finance is asked about is not asked about any more: the plan takes the new one.
    PERFORM prepaid.take_price_again(ARRAY(
        SELECT p.service_plan_id FROM prepaid.service_plans p
        JOIN prepaid.holds h USING (service_plan_id)
        WHERE p.subscription_id = subscription AND h.reason_code = 'price_concession'
          AND h.released_at IS NULL AND p.invoiced_at IS NULL));
    PERFORM prepaid.withdraw_own_approvals_of(s.customer_id);
    RETURN coalesce(opened, waiting.service_plan_id);
END $$;
