-- Claims and what is unsettled in a narrow table of their own: a claim no longer writes the whole plan.

DROP VIEW prepaid.unpaid_invoices;

DROP VIEW prepaid.ready_to_settle;

DROP VIEW prepaid.ready_to_invoice;

-- What the pipeline is not done with: each plan from its opening until step 11, and again when its
-- payment is taken back; and which batch has claimed it. A row of its own, because a claim on the plan
-- itself would write all of its columns and indexes anew. No foreign keys, which would cost a look-up
-- per plan and claim: rows come from a trigger on service_plans, and a batch is never deleted. No index
-- on the batch: without it a claim stays on its page, for which the pages are kept half empty.
CREATE TABLE prepaid.unsettled_plans (
    service_plan_id bigint PRIMARY KEY,
    batch_id bigint
) WITH (fillfactor = 50);

-- Waiting plans, and activated ones whose settling is not finished or whose payment was taken back.
INSERT INTO prepaid.unsettled_plans (service_plan_id, batch_id)
SELECT service_plan_id, batch_id FROM prepaid.service_plans
WHERE status IN ('Pending', 'Processing')
   OR activated_on IS NOT NULL AND invoiced_at IS NOT NULL AND settled_at IS NULL;

ALTER TABLE prepaid.service_plans DROP COLUMN settled_at, DROP COLUMN batch_id;
ALTER TABLE prepaid.service_plans RENAME CONSTRAINT service_plans_check5 TO service_plans_check4;

GRANT SELECT ON prepaid.unsettled_plans TO engineering;

CREATE FUNCTION prepaid.note_unsettled_plans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.unsettled_plans (service_plan_id)
    SELECT service_plan_id FROM new_rows WHERE status = 'Pending';
    RETURN NULL;
END $$;

CREATE TRIGGER note_unsettled_plans AFTER INSERT ON prepaid.service_plans
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.note_unsettled_plans();

-- A plan that is cancelled before activation takes what hangs on it along: nobody is asked to pay or
-- to verify any more, and money that has arrived for it goes to finance as a task.
CREATE OR REPLACE FUNCTION prepaid.close_cancelled_plan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = NEW.service_plan_id;
    PERFORM prepaid.void_open_invoice(NEW.service_plan_id);
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = NEW.service_plan_id AND released_at IS NULL;
    IF NEW.kind = 'change' THEN
        PERFORM prepaid.take_back_change(NEW.service_plan_id);
    END IF;
    RETURN NULL;
END $$;

-- Which plans wait for the pipeline. Claims and sensors read the same views, so that a sensor never
-- asks for a run that would find nothing, and never misses one.

-- Steps 1-5. Whether the plan is due (lead days before its start) depends on the business date.
CREATE VIEW prepaid.ready_to_invoice AS
SELECT p.service_plan_id, p.planned_start, p.term_days, u.batch_id
FROM prepaid.service_plans p
JOIN prepaid.unsettled_plans u USING (service_plan_id)
WHERE p.invoiced_at IS NULL AND p.status IN ('Pending', 'Processing')
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = u.batch_id AND b.leased_until > clock_timestamp())
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL);

-- Steps 6-11: invoiced, the record matched and the payment approved (or nothing to pay). A plan whose
-- payment was taken back after activation comes here again when it is paid again.
CREATE VIEW prepaid.ready_to_settle AS
SELECT p.service_plan_id, u.batch_id
FROM prepaid.unsettled_plans u
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.invoiced_at IS NOT NULL
  AND p.status IN ('Pending', 'Active', 'Expired', 'Cancelled')
  AND (p.status <> 'Cancelled' OR p.activated_on IS NOT NULL)
  AND (p.status <> 'Cancelled' OR i.status = 'Open')
  AND (i.status = 'Paid' OR i.payable = 0 OR (
      -- What has landed and is not judged yet may say that the money was taken back. NOT IN, because
      -- these few are then read once and not for each plan.
      i.invoice_number NOT IN (SELECT landed.invoice_number FROM prepaid.transactions landed
                               WHERE landed.outcome IS NULL AND landed.invoice_number IS NOT NULL)
      AND EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched'
                    AND (coalesce(t.provider, ''), coalesce(t.provider_ref, '')) NOT IN (
                        SELECT landed.provider, landed.provider_ref FROM prepaid.transactions landed
                        WHERE landed.outcome IS NULL
                          AND landed.provider IS NOT NULL AND landed.provider_ref IS NOT NULL))
      AND EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
                    AND k.status <> 'Withdrawn' AND k.decision = 'approved')))
  -- The batch that invoiced it is done with it, whatever its lease.
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = u.batch_id AND b.queue = 'settle_renewals'
                    AND b.leased_until > clock_timestamp())
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL);

-- Invoices that nobody has begun to pay, so that the customer is reminded and at last the plan is
-- cancelled. Not while anything about the payment is in our own hands: the plan held, a record that
-- matches, waits or was not judged yet, a question to finance, or an approval that came first.
CREATE VIEW prepaid.unpaid_invoices AS
SELECT i.invoice_id, i.invoice_number, p.service_plan_id, p.email,
       prepaid.due_on(i.issued_on, p.planned_start) AS due_on, running.end_date AS running_until
FROM prepaid.service_plans p
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Open'
LEFT JOIN prepaid.service_plans running
    ON running.service_plan_id = p.previous_plan_id AND p.kind = 'change'
WHERE p.status = 'Pending' AND p.invoiced_at IS NOT NULL
  AND i.payable > 0
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched')
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_number = i.invoice_number
                    AND (t.outcome IS NULL OR t.outcome = 'waiting'))
  -- Assigned to it by a person, whatever number the record has.
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.service_plan_id = p.service_plan_id AND k.invoice_id = i.invoice_id
                    AND (k.kind = 'payment_review' AND k.status = 'Open'
                      OR k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
                        AND (k.decision = 'approved' OR k.first_approved_by IS NOT NULL)));

-- Cancels a plan that was not activated yet. A trigger voids its open invoice and parks money that
-- was matched to it; an invoice that is paid already is credited in full. (Its own credit, from a
-- change of plan that now never happens, is no money that came from the customer.)
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
        PERFORM prepaid.void_open_invoice(plan);
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
    PERFORM prepaid.void_open_invoice(p.service_plan_id);
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

GRANT SELECT ON prepaid.ready_to_invoice, prepaid.ready_to_settle, prepaid.unpaid_invoices TO engineering;
