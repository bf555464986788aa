-- Which plans wait for the pipeline, and which batch has them in hand. Claims and sensors read the same
-- views, so that a sensor never asks for a run that would find nothing, and never misses one.

-- A batch is a lease on up to 10,000 plans. The lease is renewed here by every step, one row
-- instead of ten thousand; a plan whose batch's lease has run out may be claimed by another batch.
CREATE TABLE prepaid.batches (
    batch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL CHECK (queue IN ('open_renewals', 'settle_renewals')),
    as_of date NOT NULL,
    run_id text,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_until timestamptz NOT NULL,
    finished_at timestamptz
);

-- What the pipeline is not done with: each plan from its opening until step 11, and again when its
-- payment is taken back; and which batch has claimed it. A row of its own, because a claim on the plan
-- itself would rewrite all of its columns and indexes. No foreign keys, which would cost a look-up
-- per plan and claim: rows come from a trigger on service_plans, and a batch is never deleted. No index
-- on the batch: without it a claim stays on its page, for which the pages are kept half empty.
CREATE TABLE prepaid.unsettled_plans (
    service_plan_id bigint PRIMARY KEY,
    batch_id bigint
) WITH (fillfactor = 50);

CREATE FUNCTION prepaid.note_unsettled_plans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.unsettled_plans (service_plan_id)
    SELECT service_plan_id FROM new_rows WHERE status = 'Pending';
    RETURN NULL;
END $$;
CREATE TRIGGER note_unsettled_plans AFTER INSERT ON prepaid.service_plans
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.note_unsettled_plans();

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
-- matches or was not judged yet, a question to finance, or an approval that came first. A payment that
-- failed brings no money: whether finance is asked about it makes no difference. clearing_since: the
-- latest day of what is on its way; whoever reads it knows for how many days that counts.
CREATE VIEW prepaid.unpaid_invoices AS
SELECT i.invoice_id, i.invoice_number, p.service_plan_id, p.email,
       prepaid.due_on(i.issued_on, p.planned_start) AS due_on, running.end_date AS running_until,
       -- A day after the delivery is none on which anything happened.
       (SELECT max(prepaid.business_date(least(t.occurred_at, t.received_at)))
        FROM prepaid.transactions t
        WHERE t.invoice_number = i.invoice_number AND t.outcome = 'waiting') AS clearing_since
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
                  WHERE t.invoice_number = i.invoice_number AND t.outcome IS NULL)
  -- Assigned to it by a person, whatever number the record has.
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.service_plan_id = p.service_plan_id AND k.invoice_id = i.invoice_id
                    AND (k.kind = 'payment_review' AND k.status = 'Open'
                         AND NOT EXISTS (SELECT FROM prepaid.transactions t
                                         WHERE t.transaction_id = k.transaction_id
                                           AND prepaid.record_status(t.status) = 'Failed')
                      OR k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
                        AND (k.decision = 'approved' OR k.first_approved_by IS NOT NULL)));
