-- From 0006: what happens when a plan is cancelled, a credit note issued or a task opened is called where
-- it is read, and no trigger does it.

DROP TRIGGER close_cancelled_plan ON prepaid.service_plans;
DROP TRIGGER follow_credit_note ON prepaid.credit_notes;
DROP TRIGGER set_due_date ON prepaid.tasks;
DROP FUNCTION prepaid.close_cancelled_plan;
DROP FUNCTION prepaid.void_open_invoice;
DROP FUNCTION prepaid.follow_credit_note;
DROP FUNCTION prepaid.set_due_date;

CREATE OR REPLACE FUNCTION prepaid.check_plan_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A plan that nobody activates any more leaves nothing behind that asks for money or for a person:
    -- prepaid.close_waiting_plans comes first.
    IF NEW.status = 'Cancelled' AND OLD.status IN ('Pending', 'Processing') AND (
        EXISTS (SELECT FROM prepaid.unsettled_plans u WHERE u.service_plan_id = NEW.service_plan_id)
        OR EXISTS (SELECT FROM prepaid.invoices i
                   WHERE i.service_plan_id = NEW.service_plan_id AND i.status = 'Open')
        OR EXISTS (SELECT FROM prepaid.holds h
                   WHERE h.service_plan_id = NEW.service_plan_id AND h.released_at IS NULL))
    THEN
        RAISE EXCEPTION 'service plan % cannot be Cancelled while it waits in the queue, is held or has an '
            'open invoice: prepaid.close_waiting_plans comes first', NEW.service_plan_id;
    END IF;
    IF OLD.status = 'Pending' AND NEW.status = 'Processing' AND NEW.invoiced_at IS NULL
        OR OLD.status = 'Processing' AND NEW.status = 'Pending'
        OR OLD.status = 'Active' AND NEW.status = 'Expired'
        OR OLD.status IN ('Pending', 'Processing', 'Active') AND NEW.status = 'Cancelled'
    THEN
        RETURN NEW;
    END IF;
    IF OLD.status = 'Pending' AND NEW.status = 'Active' THEN
        IF EXISTS (SELECT FROM prepaid.invoices i
                   WHERE i.service_plan_id = NEW.service_plan_id AND i.status = 'Paid') THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'service plan % cannot become Active: it has no paid invoice',
            NEW.service_plan_id;
    END IF;
    RAISE EXCEPTION 'service plan % cannot go from % to %', NEW.service_plan_id, OLD.status, NEW.status;
END $$;

-- Voids the open invoices of plans with what hangs on them: nobody is asked to pay or to verify any
-- more, and money that was matched to them goes to finance as a task.
CREATE FUNCTION prepaid.void_open_invoices(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = ANY (plans) AND kind = 'payment_verification' AND status = 'Open';
    -- Money of a paid invoice that was credited is paid back by the credit note's own task.
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on, due_on)
    SELECT 'payment_review', i.service_plan_id, i.invoice_id, t.transaction_id, 'finance',
           prepaid.today(), prepaid.task_due_on(prepaid.today())
    FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
    -- Void ones have no matched record. Saying so finds the invoice by its index; reading 40,000 of
    -- them cost 34 ms for each plan.
    WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void' AND t.outcome = 'matched'
      AND NOT EXISTS (SELECT FROM prepaid.credit_notes n WHERE n.service_plan_id = i.service_plan_id)
    ORDER BY i.service_plan_id, t.transaction_id
    ON CONFLICT DO NOTHING;
    -- In the words of match_payments for a record that comes only now.
    UPDATE prepaid.transactions t
    SET outcome = 'parked', outcome_reason = format('invoice %s is void', i.invoice_number)
    FROM prepaid.invoices i
    WHERE i.service_plan_id = ANY (plans) AND i.status = 'Open'
      AND t.invoice_id = i.invoice_id AND t.outcome = 'matched';
    -- The record is free: a person may assign it to another invoice.
    UPDATE prepaid.invoices SET status = 'Void', transaction_id = NULL
    WHERE service_plan_id = ANY (plans) AND status = 'Open';
END $$;

-- Voids an open invoice for the finance officer who is acting. With reissue the next run issues a new
-- one from what the subscription has then; without, the plan is held until somebody decides. The invoice
-- of a plan that is over (its payment was taken back) is not collectible; the plan stays as it is.
-- Returns the plan.
CREATE OR REPLACE FUNCTION prepaid.void_invoice(number text, reissue boolean, why text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_in(ARRAY['finance'], 'void invoices', why);
    i record;
    p record;
    over boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
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
        RAISE EXCEPTION 'service plan % of invoice % runs, though its payment was taken back: %',
            p.service_plan_id, number, CASE WHEN p.full_end_date IS NULL
                THEN 'cancel it at once, that voids the invoice'
                ELSE format('void it when the term has ended, on %s', p.end_date) END;
    ELSIF reissue AND over THEN
        RAISE EXCEPTION 'service plan % of invoice % is %: its invoice can be voided, not issued anew',
            p.service_plan_id, number, p.status;
    END IF;
    PERFORM prepaid.void_open_invoices(ARRAY[p.service_plan_id]);
    -- What was doubtful about the payment was about this invoice.
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = person, note = why
    WHERE service_plan_id = p.service_plan_id AND released_at IS NULL
      AND reason_code IN ('payment_rejected', 'payment_mismatch', 'payment_reversed');
    -- A term that is over stays as it was: what was taken back is not collectible.
    IF NOT over THEN
        DELETE FROM prepaid.charges WHERE service_plan_id = p.service_plan_id;
    END IF;
    -- An order keeps the price that was agreed; all else is taken anew from the subscription.
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
    RETURN p.service_plan_id;
END $$;

CREATE FUNCTION prepaid.audit_new_credit_notes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, detail, actor, run_id, as_of)
    SELECT 'credit_note_issued', service_plan_id, 'credit_note', credit_note_id,
           format('%s over %s %s', credit_note_number, total, currency),
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows;
    RETURN NULL;
END $$;

CREATE TRIGGER audit_new_credit_notes AFTER INSERT ON prepaid.credit_notes
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_new_credit_notes();

-- Issues the credit note of a term; its id, null when there is nothing to credit. applied is what it
-- pays of invoice applied_to; the rest is owed to the customer, and finance is asked to pay it back.
CREATE OR REPLACE FUNCTION prepaid.issue_credit_note(
    plan bigint, from_date date, taxed_on date, why text, remark text,
    applied_to bigint DEFAULT NULL, applied numeric DEFAULT 0, paid_plan bigint DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    note_id bigint;
BEGIN
    WITH lines AS MATERIALIZED (
        SELECT * FROM prepaid.unused_credit(plan, from_date, taxed_on, paid_plan)
    ), issued AS (
        INSERT INTO prepaid.credit_notes (
            credit_note_number, service_plan_id, invoice_id, customer_id, currency, net, tax, total,
            reason, note, applied_to_invoice_id, applied, issued_on, issued_by)
        SELECT prepaid.next_document_number('CN', prepaid.today()), p.service_plan_id, i.invoice_id,
               p.customer_id, p.currency, l.net, l.tax, l.net + l.tax, why, remark,
               CASE WHEN issue_credit_note.applied > 0 THEN applied_to END,
               issue_credit_note.applied, prepaid.today(), prepaid.actor()
        FROM (SELECT sum(net) AS net, sum(tax) AS tax FROM lines HAVING sum(net + tax) > 0) l
        JOIN prepaid.service_plans p ON p.service_plan_id = plan
        LEFT JOIN prepaid.invoices i ON i.service_plan_id = plan AND i.status = 'Paid'
        RETURNING credit_note_id
    ), with_lines AS (
        INSERT INTO prepaid.credit_note_lines
            (credit_note_id, line_number, description, net, tax_class, tax_rate, tax)
        SELECT n.credit_note_id, l.* FROM issued n CROSS JOIN lines l
    )
    SELECT credit_note_id INTO note_id FROM issued;
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, credit_note_id, assigned_role, opened_on, due_on)
    SELECT 'payment_refund', n.service_plan_id, n.invoice_id, n.credit_note_id, 'finance', n.issued_on,
           prepaid.task_due_on(n.issued_on)
    FROM prepaid.credit_notes n WHERE n.credit_note_id = note_id AND n.refund > 0;
    RETURN note_id;
END $$;

-- Until when a task is to be decided. Whoever opens one says so: due_on has no default.
CREATE FUNCTION prepaid.task_due_on(opened_on date) RETURNS date LANGUAGE sql STABLE RETURN
    opened_on + (SELECT task_days FROM prepaid.installation);

-- Releases every live hold of a plan under the acting person's name; the plan goes on where it was.
-- A released rejection opens a new verification task on the same invoice. Holds about money are for
-- finance; a payment that was taken back is not made good by releasing. Returns the holds released.
CREATE OR REPLACE FUNCTION prepaid.release_holds(plan bigint, release_note text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    released integer;
    rejected boolean;
    reversed boolean;
    money text;
    unpaid text;
BEGIN
    IF NOT prepaid.is_in_team(person, 'finance', 'customer_success', 'engineering') THEN
        RAISE EXCEPTION '% may not release holds: not in finance, customer_success or engineering', person;
    END IF;
    IF coalesce(release_note, '') !~ '\S' THEN
        RAISE EXCEPTION 'releasing a hold needs a note that says what was done';
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    -- What was released is asked of the release itself: a rejection at this very moment is either
    -- among it or stays a hold.
    WITH freed AS (
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = release_note
        WHERE h.service_plan_id = plan AND h.released_at IS NULL
        RETURNING h.reason_code
    )
    SELECT count(*), bool_or(reason_code = 'payment_rejected'), bool_or(reason_code = 'payment_reversed'),
           string_agg(reason_code, ', ' ORDER BY reason_code) FILTER (WHERE reason_code IN (
               'payment_rejected', 'payment_reversed', 'payment_mismatch', 'change_paid_late',
               'credit_not_paid', 'credit_differs', 'invoice_voided'))
    INTO released, rejected, reversed, money FROM freed;
    IF released = 0 THEN
        RAISE EXCEPTION 'service plan % is not held', plan;
    END IF;
    IF money IS NOT NULL AND NOT prepaid.is_in_team(person, 'finance') THEN
        RAISE EXCEPTION '% may not release %: it is about money, only finance can', person, money;
    END IF;
    SELECT i.invoice_number INTO unpaid FROM prepaid.invoices i
    WHERE i.service_plan_id = plan AND i.status = 'Open' AND reversed;
    IF FOUND THEN
        RAISE EXCEPTION 'the payment of invoice % was taken back, releasing does not pay it: the hold ends '
            'with a payment that stands, with cancelling the plan at once, or, when the term is over, with '
            'voiding the invoice', unpaid;
    END IF;
    IF rejected THEN
        UPDATE prepaid.tasks k SET status = 'Withdrawn'
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND k.invoice_id = i.invoice_id
          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
          AND k.decision IS DISTINCT FROM 'approved';
        INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on, due_on)
        SELECT 'payment_verification', plan, i.invoice_id, 'finance', prepaid.today(),
               prepaid.task_due_on(prepaid.today())
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND i.payable > 0
          AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn');
    END IF;
    RETURN released;
END $$;

-- What comes before plans are cancelled that were never activated (check_plan_transition refuses it
-- otherwise): they leave the queue, nobody is asked to pay or to verify any more, money that has arrived
-- for them goes to finance as a task, their holds end, and what a change of plan changed is taken back.
CREATE FUNCTION prepaid.close_waiting_plans(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- The plan before its place in the queue, as the steps do.
    PERFORM FROM prepaid.service_plans p WHERE p.service_plan_id = ANY (plans)
    ORDER BY p.service_plan_id FOR NO KEY UPDATE;
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = ANY (plans);
    PERFORM prepaid.void_open_invoices(plans);
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = ANY (plans) AND released_at IS NULL;
    PERFORM prepaid.take_back_change(p.service_plan_id) FROM prepaid.service_plans p
    WHERE p.service_plan_id = ANY (plans) AND p.kind = 'change';
END $$;

-- Cancels a plan that was not activated yet. An invoice that is paid already is credited in full. (Its
-- own credit, from a change of plan that now never happens, is no money that came from the customer.)
CREATE OR REPLACE FUNCTION prepaid.cancel_waiting_plan(plan bigint, remark text) RETURNS bigint
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
CREATE OR REPLACE FUNCTION prepaid.cut_active_term(plan bigint, cut_on date, remark text) RETURNS bigint
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
