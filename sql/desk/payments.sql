-- Payments to verify. Pages are found by key, so that the last one is as fast as the first.

-- name: list
-- What is cheap to ask comes first, for all open tasks; the comparison of record and invoice is looked
-- up for one after the other, until the page is full. (It takes 60 µs each, half a second for 10,000.)
SELECT v.task_id, v.opened_on, v.due_on, v.assigned_to, v.invoice_number, v.customer_ref,
       v.customer_name, v.plan_name, v.currency, v.payable, v.record_ref, v.record_status, v.record_amount,
       v.record_currency, v.agrees, v.difference, v.approvals_needed, v.first_approved_by, v.may_decide,
       v.why_not, v.what_to_do
FROM (
    SELECT k.task_id
    FROM prepaid.tasks k
    JOIN prepaid.invoices i USING (invoice_id)
    WHERE k.kind = 'payment_verification' AND k.status = 'Open' AND k.task_id > :after
      AND (CAST(:currency AS text) IS NULL OR i.currency = :currency)
      AND (CAST(:search AS text) IS NULL OR i.payable = ANY (CAST(:amounts AS numeric[])) OR EXISTS (
            SELECT FROM prepaid.service_plans p JOIN prepaid.customers c USING (customer_id)
            WHERE p.service_plan_id = i.service_plan_id AND position(lower(:search) IN lower(
                concat_ws(' ', i.invoice_number, c.customer_ref, p.customer_name))) > 0))
      AND (:show <> 'second' OR k.first_approved_by IS NOT NULL)
      AND (:show <> 'overdue' OR k.due_on < CAST(:today AS date))
      AND (:show <> 'mine' OR k.assigned_to = CAST(:person AS text))
      AND (:show <> 'agree' OR EXISTS (SELECT FROM prepaid.transactions t
                                       WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched'))
      AND (:show NOT IN ('differ', 'none') OR (:show = 'none') = (
            NOT EXISTS (SELECT FROM prepaid.transactions t WHERE t.invoice_number = i.invoice_number)
            AND NOT EXISTS (SELECT FROM prepaid.transactions t WHERE t.invoice_id = i.invoice_id)))
      -- Left out of those that differ: paid to the cent by one record, with nothing known after it.
      AND (:show <> 'differ' OR NOT EXISTS (
            SELECT FROM prepaid.transactions t JOIN prepaid.customers c ON c.customer_id = i.customer_id
            WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched' AND t.status = 'Success'
              AND t.amount = i.payable AND t.currency = i.currency AND t.assigned_by IS NULL
              AND coalesce(t.customer_ref, c.customer_ref) = c.customer_ref
              AND NOT EXISTS (
                  SELECT FROM prepaid.transactions other
                  WHERE other.invoice_id = i.invoice_id AND other.outcome = 'matched'
                    AND other.transaction_id <> t.transaction_id)
              AND NOT EXISTS (
                  SELECT FROM prepaid.transactions later
                  WHERE hashtextextended(later.provider_ref, 0) = hashtextextended(t.provider_ref, 0)
                    AND later.provider_ref = t.provider_ref AND later.provider = t.provider
                    AND later.status IS DISTINCT FROM 'Success'
                    AND later.outcome IS DISTINCT FROM 'superseded')))
    ORDER BY k.task_id OFFSET 0
) k
CROSS JOIN LATERAL (SELECT * FROM prepaid.payment_verifications WHERE task_id = k.task_id OFFSET 0) v
WHERE (:show <> 'agree' OR v.agrees) AND (:show <> 'differ' OR NOT v.agrees)
ORDER BY k.task_id LIMIT :rows;

-- name: currencies
SELECT DISTINCT i.currency
FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
WHERE k.kind = 'payment_verification' AND k.status = 'Open' ORDER BY i.currency;

-- name: to_approve
-- What may be approved together: agreeing in amount, currency, customer and reference, and by this
-- person. With tasks only those; seen is the latest sign-off of each.
SELECT v.task_id, v.invoice_number, v.customer_ref, v.customer_name, v.currency, v.payable, last.seen,
       v.approvals_needed = 2 AND v.first_approved_by IS NULL AS is_first
FROM prepaid.payment_verifications v
CROSS JOIN LATERAL (SELECT coalesce(max(s.sign_off_id), 0) AS seen FROM prepaid.sign_offs s
                    WHERE s.task_id = v.task_id) last
WHERE v.status = 'Open' AND v.agrees AND v.may_decide
  AND (CAST(:tasks AS bigint[]) IS NULL OR v.task_id = ANY (:tasks))
  AND (CAST(:currency AS text) IS NULL OR v.currency = :currency)
  AND (CAST(:search AS text) IS NULL
       OR position(lower(:search) IN lower(concat_ws(' ', v.invoice_number, v.customer_ref, v.customer_name))) > 0
       OR v.payable = ANY (CAST(:amounts AS numeric[])))
  AND (:show <> 'second' OR v.first_approved_by IS NOT NULL)
  AND (:show <> 'overdue' OR v.due_on < CAST(:today AS date))
  AND (:show <> 'mine' OR v.assigned_to = CAST(:person AS text))
ORDER BY v.task_id LIMIT :rows;

-- name: next
SELECT min(task_id) FROM prepaid.tasks
WHERE kind = 'payment_verification' AND status = 'Open' AND task_id > :task;

-- name: one
SELECT v.*, k.decision IS NOT NULL AS is_decided, i.status AS invoice_status, i.issued_on,
       coalesce((SELECT max(s.sign_off_id) FROM prepaid.sign_offs s WHERE s.task_id = v.task_id), 0) AS seen
FROM prepaid.payment_verifications v
JOIN prepaid.tasks k USING (task_id)
JOIN prepaid.invoices i ON i.invoice_id = k.invoice_id
WHERE v.task_id = :task;

-- name: lines
SELECT l.description, l.quantity, l.net, l.tax_rate, l.tax
FROM prepaid.invoice_lines l JOIN prepaid.invoices i USING (invoice_id)
WHERE i.invoice_number = :invoice_number ORDER BY l.line_number;

-- name: records
SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number, t.customer_ref, t.amount,
       t.currency, t.status, t.occurred_at, t.outcome, t.outcome_reason, t.assigned_by
FROM prepaid.transactions t
WHERE t.invoice_number = :invoice_number
   OR t.invoice_id = (SELECT i.invoice_id FROM prepaid.invoices i WHERE i.invoice_number = :invoice_number)
ORDER BY t.occurred_at DESC NULLS LAST, t.transaction_id DESC LIMIT 20;
