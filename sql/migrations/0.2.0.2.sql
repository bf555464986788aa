-- Locks become rows that people cannot reach, and it is known who keeps the pipeline waiting. The five
-- functions that took an advisory lock are as before, but for the line that takes it.

-- The locks of the pipeline. They are rows of a table that people cannot reach: an advisory lock is a
-- number, and every login of the server can hold it for ever. Here is also who keeps the pipeline
-- waiting.

-- Two kinds of rows. What only one transaction may do at a time has a row that is always there, and
-- that it locks until its end (take_lock). What only one process may do, or that it lives, is a row of
-- its own, which says who has it and until when (sql/database/leases.sql).
CREATE TABLE prepaid.locks (
    name text PRIMARY KEY,
    holder text,
    -- The session of the holder: when it is gone, so is the holder, however long the lease is.
    session_pid integer,
    session_started timestamptz,
    taken_at timestamptz,
    leased_until timestamptz,
    CHECK (num_nulls(holder, session_pid, session_started, taken_at, leased_until) IN (0, 5))
);
INSERT INTO prepaid.locks (name) VALUES
    ('audit seals'), ('import'), ('monthly figures'), ('overdue tasks'), ('payment matching');

-- Waits for a lock and keeps it until the transaction ends.
CREATE FUNCTION prepaid.take_lock(wanted text) RETURNS void
LANGUAGE plpgsql SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM FROM prepaid.locks l WHERE l.name = wanted FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no lock %', wanted;
    END IF;
END $$;

-- Open transactions of others that keep, or kept, the pipeline from what it wanted. A transaction is
-- named by its session and its number there; the row goes when it has ended.
CREATE TABLE prepaid.blocking_sessions (
    pid integer NOT NULL,
    virtual_transaction text NOT NULL,
    person text NOT NULL,
    -- What the pipeline waited for last, such as service_plans.
    waited_for text NOT NULL,
    blocked_since timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Why the session could not be ended.
    refusal text,
    PRIMARY KEY (pid, virtual_transaction)
);

REVOKE EXECUTE ON FUNCTION prepaid.take_lock FROM PUBLIC;
REVOKE ALL ON prepaid.locks, prepaid.blocking_sessions FROM engineering;

CREATE OR REPLACE FUNCTION prepaid.seal_audit_log(wait boolean DEFAULT false)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = prepaid, pg_temp SET enable_seqscan TO off AS $$
DECLARE
    last prepaid.audit_seals;
    made prepaid.audit_seals;
    writing text[];
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the audit log is sealed by READ COMMITTED transactions only';
    END IF;
    IF wait THEN
        PERFORM take_lock('audit seals');
    ELSE
        PERFORM FROM locks l WHERE l.name = 'audit seals' FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    SELECT * INTO last FROM audit_seals s ORDER BY s.seal_number DESC LIMIT 1;
    last.sealed_through := coalesce(last.sealed_through, 0);
    -- An id that was never given out would leave all others below it.
    SELECT coalesce(max(next.audit_id), last.sealed_through) INTO made.sealed_through
    FROM (SELECT a.audit_id FROM audit_log a
          WHERE a.audit_id > last.sealed_through
            AND a.audit_id <= (SELECT q.last_value FROM audit_log_audit_id_seq q)
          ORDER BY a.audit_id LIMIT 50000) next;

    SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{}') INTO writing
    FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.relation = 'prepaid.audit_log'::regclass
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.mode = 'RowExclusiveLock' AND l.pid IS DISTINCT FROM pg_backend_pid();

    SELECT count(*), range_agg(int8range(entry.audit_id, entry.audit_id, '[]')),
           sha256(string_agg(entry.hash, '' ORDER BY entry.audit_id)),
           string_agg(substr(entry.hash, 1, 8), '' ORDER BY entry.audit_id)
    INTO made.entries, made.ids, made.entries_hash, made.digests
    FROM unnest(coalesce(last.awaited, '{}')
                + int8multirange(int8range(last.sealed_through, made.sealed_through, '(]'))) span
    CROSS JOIN LATERAL (
        SELECT a.audit_id, sha256(record_send(ROW(
            a.audit_id, a.at, convert_to(a.event, 'UTF8'), a.service_plan_id,
            convert_to(a.entity, 'UTF8'), a.entity_id, convert_to(a.before, 'UTF8'),
            convert_to(a.after, 'UTF8'), convert_to(a.detail, 'UTF8'), convert_to(a.actor, 'UTF8'),
            convert_to(a.run_id, 'UTF8'), a.as_of))) AS hash
        FROM audit_log a
        WHERE a.audit_id >= lower(span) AND a.audit_id < upper(span)
        ORDER BY a.audit_id) entry;
    IF made.entries = 0 THEN
        RETURN 0;
    END IF;

    DELETE FROM audit_awaited w WHERE NOT w.writers && writing;
    UPDATE audit_awaited w SET ids = w.ids - made.ids WHERE w.ids && made.ids;
    INSERT INTO audit_awaited (ids, writers)
    SELECT gaps.ids, writing
    FROM (SELECT int8multirange(int8range(last.sealed_through, made.sealed_through, '(]'))
                 - made.ids AS ids) gaps
    WHERE NOT isempty(gaps.ids) AND cardinality(writing) > 0;

    made.seal_number := coalesce(last.seal_number, 0) + 1;
    made.sealed_at := clock_timestamp();
    made.awaited := coalesce((SELECT range_agg(w.ids) FROM audit_awaited w), '{}');
    made.previous_hash := coalesce(last.seal_hash, decode(repeat('00', 32), 'hex'));
    made.seal_hash := sha256(record_send(ROW(
        made.seal_number, made.sealed_at, made.sealed_through, made.entries,
        convert_to(made.ids::text, 'UTF8'), convert_to(made.awaited::text, 'UTF8'),
        made.entries_hash, made.digests, made.previous_hash)));
    INSERT INTO audit_seals VALUES (made.*);
    RETURN made.entries;
END $$;

CREATE OR REPLACE FUNCTION prepaid.void_invoice(number text, reissue boolean, why text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('void invoices', why);
    i record;
    p record;
    over boolean;
BEGIN
    PERFORM take_lock('payment matching');
    SELECT plan.* INTO p FROM prepaid.service_plans plan JOIN prepaid.invoices USING (service_plan_id)
    WHERE invoice_number = number FOR NO KEY UPDATE OF plan;
    -- The invoice as it is now that the plan is ours: a step may have paid it while we waited.
    SELECT * INTO i FROM prepaid.invoices WHERE invoice_number = number;
    over := p.status IN ('Expired', 'Cancelled');
    IF i.invoice_id IS NULL THEN
        RAISE EXCEPTION 'there is no invoice %', number;
    ELSIF i.status <> 'Open' THEN
        RAISE EXCEPTION 'invoice % is %: only an open one can be voided%', number, i.status,
            CASE i.status WHEN 'Paid' THEN '; a paid one is credited by cancelling its plan' ELSE '' END;
    ELSIF p.status = 'Active' THEN
        RAISE EXCEPTION 'service plan % of invoice % is active, although its payment was reversed: %',
            p.service_plan_id, number, CASE WHEN p.full_end_date IS NULL
                THEN 'cancel it at once, that voids the invoice'
                ELSE format('void it when the term has ended, on %s', p.end_date) END;
    ELSIF reissue AND over THEN
        RAISE EXCEPTION 'service plan % of invoice % is %: its invoice can be voided, not reissued',
            p.service_plan_id, number, p.status;
    END IF;
    PERFORM prepaid.lock_tasks_of(p.customer_id);
    PERFORM prepaid.void_open_invoices(ARRAY[p.service_plan_id]);
    -- What was doubtful about the payment was about this invoice.
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = person, note = why
    WHERE service_plan_id = p.service_plan_id AND released_at IS NULL
      AND reason_code IN (SELECT r.reason_code FROM prepaid.hold_reasons r WHERE r.about_invoice);
    -- A term that is over stays as it was: what was taken back is not collectible.
    IF NOT over THEN
        DELETE FROM prepaid.charges WHERE service_plan_id = p.service_plan_id;
    END IF;
    -- An order keeps the price that was agreed; all else is taken again from the subscription.
    UPDATE prepaid.service_plans
    SET status = 'Pending', invoiced_at = NULL, retrieved_at = NULL,
        price = CASE WHEN opened_on IS NULL THEN price END
    WHERE service_plan_id = p.service_plan_id AND NOT over;
    -- A worker that has the plan in hand finds it gone from its batch.
    IF over THEN
        DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = p.service_plan_id;
    ELSE
        UPDATE prepaid.unsettled_plans SET batch_id = NULL WHERE service_plan_id = p.service_plan_id;
    END IF;
    IF NOT reissue AND NOT over THEN
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT p.service_plan_id, 'invoice_voided', format(
            '%s voided invoice %s: %s. Release the hold and a new invoice is issued, or cancel the plan.',
            person, number, why)
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
    END IF;
    INSERT INTO prepaid.requests
        (kind, subscription_id, service_plan_id, invoice_id, asked_on, note, asked_by)
    VALUES (CASE WHEN reissue THEN 'invoice_reissue' ELSE 'invoice_void' END, p.subscription_id,
            p.service_plan_id, i.invoice_id, prepaid.today(), why, person);
    PERFORM prepaid.withdraw_own_approvals_of(p.customer_id);
    RETURN p.service_plan_id;
END $$;

CREATE OR REPLACE FUNCTION prepaid.cancel(
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

CREATE OR REPLACE FUNCTION prepaid.change_plan(
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
