-- Leaving: at the end of the term, or at once with credit for the days that are not used.

-- What comes before plans are cancelled that were never activated (check_plan_transition refuses it
-- otherwise): they leave the queue, nobody is asked to pay or to verify any more, money that has arrived
-- for them goes to finance as a task, their holds end, and what a change of plan changed is taken back.
CREATE FUNCTION prepaid.close_waiting_plans(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- The plan before its place in the queue, as the steps do.
    PERFORM FROM prepaid.service_plans p WHERE p.service_plan_id = ANY (plans)
    ORDER BY p.service_plan_id FOR NO KEY UPDATE;
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = ANY (plans);
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = ANY (plans) AND kind = 'price_concession' AND status = 'Open';
    PERFORM prepaid.void_open_invoices(plans);
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = ANY (plans) AND released_at IS NULL;
    PERFORM prepaid.take_back_change(p.service_plan_id) FROM prepaid.service_plans p
    WHERE p.service_plan_id = ANY (plans) AND p.kind = 'change';
END $$;

-- Cancels a plan that was not activated yet. An invoice that is paid already is credited in full. (Its
-- own credit, from a change of plan that now never happens, is no money that came from the customer.)
CREATE FUNCTION prepaid.cancel_waiting_plan(plan bigint, remark text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    note_id bigint;
BEGIN
    SELECT prepaid.issue_credit_note(plan, p.start_date, prepaid.today(), 'cancellation', remark,
                                     i.invoice_id, i.credit)
    INTO note_id
    FROM prepaid.service_plans p JOIN prepaid.invoices i USING (service_plan_id)
    WHERE p.service_plan_id = plan AND i.status = 'Paid';
    PERFORM prepaid.close_waiting_plans(ARRAY[plan]);
    UPDATE prepaid.service_plans
    SET status = 'Cancelled',
        may_reopen = opened_on IS NOT NULL AND kind <> 'change'
    WHERE service_plan_id = plan;
    RETURN note_id;
END $$;

-- Ends an Active term on a day inside it, or before its first one. What was paid is credited by days;
-- an invoice that is open again (the payment was taken back) is void, and nothing is paid back.
CREATE FUNCTION prepaid.cut_active_term(plan bigint, cut_on date, remark text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    note_id bigint := prepaid.issue_credit_note(plan, cut_on, prepaid.today(), 'cancellation', remark);
BEGIN
    UPDATE prepaid.service_plans
    SET full_end_date = coalesce(full_end_date, end_date), end_date = cut_on, status = 'Cancelled'
    WHERE service_plan_id = plan;
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = plan;
    IF EXISTS (SELECT FROM prepaid.invoices WHERE service_plan_id = plan AND status = 'Open') THEN
        PERFORM prepaid.void_open_invoices(ARRAY[plan]);
    END IF;
    -- Nobody needs to look at its features any more.
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = plan AND kind IN ('quality_check', 'quality_follow_up') AND status = 'Open';
    UPDATE prepaid.tasks SET closed_at = clock_timestamp()
    WHERE service_plan_id = plan AND kind IN ('quality_check', 'quality_follow_up')
      AND status = 'Done' AND closed_at IS NULL;
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = plan AND released_at IS NULL;
    RETURN note_id;
END $$;

CREATE FUNCTION prepaid.order_cancellation_mail(plan bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient)
    SELECT p.service_plan_id, 'cancellation_confirmation', CASE p.status
        WHEN 'Cancelled' THEN 'at_once' ELSE 'end_of_term' END, to_whom.address
    FROM prepaid.service_plans p JOIN prepaid.customers c USING (customer_id)
    CROSS JOIN LATERAL (SELECT coalesce(nullif(btrim(c.email), ''), p.email) AS address) to_whom
    WHERE p.service_plan_id = plan AND to_whom.address IS NOT NULL
    ON CONFLICT (service_plan_id, template, occasion) DO NOTHING;
$$;

-- Raises when the money behind running terms is not all there: what it would pay back (or pay the next
-- term with) was taken back, or a record that may say so is not judged. An invoice that a change paid
-- with credit is as good as the invoices the credit comes from.
CREATE FUNCTION prepaid.require_standing_payments(plans bigint[]) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    unjudged text;
    doubtful record;
BEGIN
    WITH RECURSIVE grounds AS (
        SELECT i.invoice_id FROM prepaid.invoices i
        WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void'
        UNION
        SELECT n.invoice_id FROM grounds g JOIN prepaid.credit_notes n ON n.applied_to_invoice_id = g.invoice_id
        WHERE n.invoice_id IS NOT NULL
    )
    SELECT min(i.invoice_number) INTO unjudged
    FROM grounds JOIN prepaid.invoices i USING (invoice_id)
    WHERE EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE t.outcome IS NULL AND (t.invoice_number = i.invoice_number OR t.invoice_id = i.invoice_id
            OR EXISTS (SELECT FROM prepaid.transactions m
                       WHERE m.invoice_id = i.invoice_id AND m.provider = t.provider
                         AND m.provider_ref = t.provider_ref)));
    IF unjudged IS NOT NULL THEN
        RAISE EXCEPTION 'payment records of invoice % are not judged yet: run ''prepaid drain'' or wait a '
            'minute', unjudged;
    END IF;

    WITH RECURSIVE grounds AS (
        SELECT i.invoice_id, p.service_plan_id, p.end_date, false AS earlier
        FROM prepaid.invoices i JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void'
        UNION
        SELECT n.invoice_id, g.service_plan_id, g.end_date, true
        FROM grounds g JOIN prepaid.credit_notes n ON n.applied_to_invoice_id = g.invoice_id
        WHERE n.invoice_id IS NOT NULL
    )
    SELECT g.*, i.invoice_number, i.status, i.credit, i.currency INTO doubtful
    FROM grounds g JOIN prepaid.invoices i USING (invoice_id)
    WHERE i.status <> 'Paid' AND (g.earlier OR i.credit > 0)
    ORDER BY g.service_plan_id, g.earlier DESC, g.invoice_id LIMIT 1;
    IF doubtful.earlier THEN
        RAISE EXCEPTION 'service plan % was paid with credit of invoice %, whose payment was reversed: '
            '%wait for the end of the term, %', doubtful.service_plan_id, doubtful.invoice_number,
            CASE doubtful.status WHEN 'Open' THEN 'have it paid again first, or ' ELSE '' END,
            doubtful.end_date;
    ELSIF NOT doubtful.earlier THEN
        RAISE EXCEPTION 'the payment of invoice % was reversed, and its credit of % % would be lost: '
            'have it paid again first, or wait for the end of the term, %', doubtful.invoice_number,
            doubtful.credit, doubtful.currency, doubtful.end_date;
    END IF;
END $$;

-- Cancels a subscription, or one plan of it, for the person who is acting.
-- Returns what happened to each plan: it ends, ended or never begins; on which day; the credit note.
CREATE FUNCTION prepaid.cancel(
    subscription bigint, plan bigint, at_once boolean, on_date date, why text
) RETURNS TABLE (service_plan_id bigint, outcome text, ends_on date, credit_note_number text,
                 currency text, credited numeric, refund numeric)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
#variable_conflict use_column
DECLARE
    person text := prepaid.person_who_says_why('cancel plans', why);
    today date := prepaid.today();
    s record;
    named record;
    last record;
    term record;
    leaves date;
    earliest date;
    touched bigint[] := '{}';
    main bigint;
    unpaid text;
BEGIN
    -- Records must not be matched to what is being cancelled; then the plans, the later ones first:
    -- step 8 holds a change of plan before it cuts the term before.
    PERFORM take_lock('payment matching');
    SELECT * INTO STRICT s FROM prepaid.subscriptions WHERE subscription_id = subscription FOR NO KEY UPDATE;
    PERFORM FROM prepaid.service_plans p WHERE p.subscription_id = subscription
    ORDER BY p.service_plan_id DESC FOR NO KEY UPDATE;
    PERFORM prepaid.lock_tasks_of(s.customer_id);
    SELECT p.* INTO named FROM prepaid.service_plans p WHERE p.service_plan_id = plan;
    SELECT p.* INTO last FROM prepaid.service_plans p
    WHERE p.subscription_id = subscription AND p.activated_on IS NOT NULL
    ORDER BY p.end_date DESC, p.start_date DESC LIMIT 1;

    IF named.status IN ('Expired', 'Cancelled') THEN
        SELECT i.invoice_number INTO unpaid FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open';
        RAISE EXCEPTION 'service plan % is % already%', plan, named.status, CASE
            WHEN unpaid IS NULL THEN ''
            ELSE format('; its invoice %s is open: a new payment, or finance voids it (prepaid invoices '
                        'void)', unpaid) END;
    ELSIF named.status IN ('Pending', 'Processing') THEN
        -- Taking back a change leaves the subscription as it was before it.
        leaves := CASE WHEN named.kind <> 'change' THEN coalesce(last.end_date, named.planned_start) END;
        touched := ARRAY[plan];
        main := plan;
    ELSE
        IF at_once AND on_date > today THEN
            RAISE EXCEPTION '% is in the future: cancel on that day, or at the end of the term', on_date;
        ELSIF at_once THEN
            -- A term that a change has cut ends where it ends; its other days are credited already.
            SELECT coalesce(array_agg(p.service_plan_id ORDER BY p.start_date)
                                FILTER (WHERE p.full_end_date IS NULL), '{}'),
                   min(p.start_date) FILTER (WHERE p.full_end_date IS NULL), min(p.start_date)
            INTO touched, leaves, earliest
            FROM prepaid.service_plans p
            WHERE p.subscription_id = subscription AND p.end_date > coalesce(on_date, today)
              AND (p.status = 'Active' OR p.status = 'Expired' AND p.full_end_date IS NOT NULL)
              AND (plan IS NULL OR p.start_date >= named.start_date);
            IF on_date < earliest THEN
                RAISE EXCEPTION 'the term starts on %: it can be cancelled from that day on', earliest;
            END IF;
            PERFORM prepaid.require_standing_payments(touched);
            leaves := greatest(leaves, CASE WHEN leaves IS NOT NULL THEN coalesce(on_date, today) END);
        ELSIF last.service_plan_id <> plan THEN
            RAISE EXCEPTION 'service plan % is followed by service plan % (% to %), which is paid: '
                'cancel that one at once, or the subscription',
                plan, last.service_plan_id, last.start_date, last.end_date;
        END IF;
        touched := touched || ARRAY(
            SELECT p.service_plan_id FROM prepaid.service_plans p
            WHERE p.subscription_id = subscription AND p.status IN ('Pending', 'Processing')
            ORDER BY p.start_date);
        leaves := coalesce(leaves, last.end_date, (
            SELECT min(p.planned_start) FROM prepaid.service_plans p
            WHERE p.service_plan_id = ANY (touched)), s.started_on);
        main := CASE WHEN leaves = last.end_date THEN last.service_plan_id ELSE touched[1] END;
        IF cardinality(touched) = 0 AND s.cancelled_on <= leaves THEN
            RAISE EXCEPTION 'subscription % is already cancelled, as of %',
                s.subscription_ref, s.cancelled_on;
        END IF;
    END IF;

    INSERT INTO prepaid.requests (kind, subscription_id, service_plan_id, asked_on, effective_on, note, asked_by)
    VALUES ('cancellation', subscription, main, today, leaves, why, person);
    UPDATE prepaid.subscriptions SET cancelled_on = least(cancelled_on, leaves)
    WHERE subscription_id = subscription AND least(cancelled_on, leaves) IS DISTINCT FROM cancelled_on;

    FOR term IN SELECT p.* FROM prepaid.service_plans p WHERE p.service_plan_id = ANY (touched)
                ORDER BY p.start_date LOOP
        IF term.status = 'Active' THEN
            PERFORM prepaid.cut_active_term(term.service_plan_id, greatest(term.start_date, leaves), why);
            PERFORM prepaid.order_cancellation_mail(term.service_plan_id);
        ELSE
            PERFORM prepaid.cancel_waiting_plan(term.service_plan_id, why);
        END IF;
    END LOOP;
    IF main <> ALL (touched) AND last.status = 'Active' AND last.end_date > today THEN
        PERFORM prepaid.order_cancellation_mail(main);
    END IF;
    PERFORM prepaid.withdraw_own_approvals_of(s.customer_id);

    RETURN QUERY
    SELECT p.service_plan_id, CASE WHEN p.status <> 'Cancelled' THEN 'ends'
               WHEN p.activated_on IS NOT NULL THEN 'ended' ELSE 'never begins' END,
           CASE WHEN p.activated_on IS NOT NULL THEN p.end_date END, n.credit_note_number, p.currency,
           n.total, n.refund
    FROM prepaid.service_plans p LEFT JOIN prepaid.credit_notes n USING (service_plan_id)
    WHERE p.service_plan_id = ANY (main || touched) ORDER BY p.start_date, p.service_plan_id;
END $$;
