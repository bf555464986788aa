-- What follows from the outcomes for tasks, invoices, batches and holds. Straight through.

-- name: withdraw_reviews
-- Finance need not look any more: another record has explained this one.
UPDATE prepaid.tasks k SET status = 'Withdrawn'
FROM judged j
WHERE k.transaction_id = j.transaction_id AND k.kind = 'payment_review' AND k.status = 'Open'
  AND j.outcome <> 'parked';

-- name: ask_for_reviews
INSERT INTO prepaid.tasks
    (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on, due_on)
SELECT 'payment_review', i.service_plan_id, i.invoice_id, j.transaction_id,
       prepaid.team_of('payment_review'), :as_of, prepaid.task_due_on(:as_of)
FROM judged j
LEFT JOIN LATERAL (SELECT invoice_id, service_plan_id FROM prepaid.invoices
                   WHERE invoice_id = j.invoice_id OFFSET 0) i ON true
WHERE j.outcome = 'parked'
  AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.transaction_id = j.transaction_id
                  AND k.kind = 'payment_review'
                  -- What finance has closed stays closed, until the record was used in between.
                  AND (k.status = 'Open' OR k.status = 'Done' AND j.was_outcome = 'parked') OFFSET 0)
ORDER BY j.transaction_id;

-- name: bereft
-- Invoices that have lost a record that paid them.
CREATE TEMP TABLE bereft (
    invoice_id bigint PRIMARY KEY, service_plan_id bigint, plan_status text, payment text
) ON COMMIT DROP;

-- name: find_bereft
INSERT INTO bereft
SELECT DISTINCT ON (i.invoice_id) i.invoice_id, i.service_plan_id, p.status, j.reason
FROM judged j
JOIN prepaid.invoices i ON i.invoice_id = j.was_invoice_id AND i.status <> 'Void'
JOIN prepaid.service_plans p USING (service_plan_id)
WHERE j.was_outcome = 'matched'
  AND (j.outcome <> 'matched' OR j.invoice_id IS DISTINCT FROM j.was_invoice_id)
ORDER BY i.invoice_id, j.transaction_id;

-- name: reopen_invoices
UPDATE prepaid.invoices i SET status = 'Open', paid_on = NULL, transaction_id = NULL
FROM bereft b WHERE i.invoice_id = b.invoice_id;

-- name: withdraw_approvals
-- The approval was for the money that is gone, the first of two as well; the next payment is verified again.
UPDATE prepaid.tasks k SET status = 'Withdrawn'
FROM bereft b
WHERE k.invoice_id = b.invoice_id AND k.kind = 'payment_verification'
  AND (k.status = 'Done' AND k.decision = 'approved' OR k.status = 'Open' AND k.first_approved_by IS NOT NULL);

-- name: withdraw_approvals_of_parked
-- Approved while it had landed and was not judged, and now it pays nothing: finance is asked again.
SELECT prepaid.ask_anew(ARRAY(
    SELECT a.task_id
    FROM (SELECT DISTINCT invoice_id FROM judged WHERE outcome <> 'matched' AND invoice_id IS NOT NULL) j
    CROSS JOIN LATERAL (SELECT service_plan_id FROM prepaid.invoices WHERE invoice_id = j.invoice_id OFFSET 0) i
    CROSS JOIN LATERAL (SELECT task_id FROM prepaid.approvals_without_payment
                        WHERE service_plan_id = i.service_plan_id OFFSET 0) a
    ORDER BY a.task_id));

-- name: ask_for_verification
-- Of a plan that was cancelled after its activation only when there is money again.
INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on, due_on)
SELECT 'payment_verification', i.service_plan_id, i.invoice_id, prepaid.team_of('payment_verification'),
       :as_of, prepaid.task_due_on(:as_of)
FROM (SELECT invoice_id FROM bereft WHERE plan_status <> 'Cancelled'
      UNION SELECT invoice_id FROM judged WHERE outcome = 'matched' AND NOT paid) asked
CROSS JOIN LATERAL (SELECT * FROM prepaid.invoices WHERE invoice_id = asked.invoice_id OFFSET 0) i
WHERE i.status = 'Open' AND i.payable > 0
  AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                  AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn' OFFSET 0)
ORDER BY i.invoice_id;

-- name: withdraw_refunds
-- Nobody pays back what the customer has taken back already.
UPDATE prepaid.tasks k SET status = 'Withdrawn'
FROM bereft b JOIN prepaid.credit_notes n USING (invoice_id)
WHERE k.credit_note_id = n.credit_note_id AND k.kind = 'payment_refund' AND k.status = 'Open';

-- name: ask_for_refunds
-- The money is there again, and with it what was to be paid back of it.
INSERT INTO prepaid.tasks
    (kind, service_plan_id, invoice_id, credit_note_id, assigned_role, opened_on, due_on)
SELECT DISTINCT 'payment_refund', n.service_plan_id, n.invoice_id, n.credit_note_id,
       prepaid.team_of('payment_refund'), CAST(:as_of AS date), prepaid.task_due_on(:as_of)
FROM judged j JOIN prepaid.credit_notes n USING (invoice_id)
WHERE j.outcome = 'matched' AND n.refund > 0
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.credit_note_id = n.credit_note_id AND k.kind = 'payment_refund'
                    AND k.status <> 'Withdrawn');

-- name: leave_batches
-- A worker that has the plan in hand finds it gone from its batch. The steps finish it again later.
INSERT INTO prepaid.unsettled_plans AS u (service_plan_id)
SELECT DISTINCT service_plan_id FROM bereft ORDER BY service_plan_id
ON CONFLICT (service_plan_id) DO UPDATE SET batch_id = NULL WHERE u.batch_id IS NOT NULL;

-- name: hold_reversed
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT b.service_plan_id, 'payment_reversed', format(
    'The payment of invoice %s does not stand: %s. The invoice is open again. Clear it up with the '
    'customer: a new payment, or cancel the plan (void its invoice if the term is over).', i.invoice_number, b.payment)
FROM bereft b JOIN prepaid.invoices i USING (invoice_id)
WHERE b.plan_status IN ('Active', 'Expired')
  AND NOT EXISTS (SELECT FROM judged j
                  WHERE j.invoice_id = b.invoice_id AND j.outcome = 'matched' AND j.credit_note_id IS NULL)
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: release_reversed
UPDATE prepaid.holds h
SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the invoice has a payment that stands'
FROM judged j JOIN prepaid.invoices i USING (invoice_id)
WHERE j.outcome = 'matched' AND j.credit_note_id IS NULL AND h.service_plan_id = i.service_plan_id
  AND h.reason_code = 'payment_reversed' AND h.released_at IS NULL;
