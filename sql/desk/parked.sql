-- Payments that fit no invoice, and refunds that a credit note asks for.

-- name: list
SELECT task_id, opened_on, due_on, assigned_to, transaction_id, provider, provider_ref, record_invoice_number,
       customer_ref, amount, currency, record_status, outcome, reason,
       (SELECT i.invoice_number FROM prepaid.transactions t JOIN prepaid.invoices i USING (invoice_id)
        WHERE t.transaction_id = v.transaction_id) AS assigned_to_invoice
FROM prepaid.parked_payments v
WHERE status = 'Open' AND task_id > :after
  AND (CAST(:search AS text) IS NULL OR amount = ANY (CAST(:amounts AS numeric[]))
       OR EXISTS (SELECT FROM unnest(CAST(:spellings AS text[])) said WHERE position(said IN lower(
            concat_ws(' ', provider_ref, record_invoice_number, customer_ref, reason))) > 0))
  AND (:show <> 'overdue' OR due_on < CAST(:today AS date))
  AND (:show <> 'mine' OR assigned_to = CAST(:person AS text))
ORDER BY task_id LIMIT :rows;

-- name: suggestions
-- For the records of one page together: each by itself would look through all open invoices.
SELECT transaction_id, invoice_number, customer_name, because
FROM prepaid.payment_suggestions
WHERE transaction_id = ANY (CAST(:records AS bigint[])) ORDER BY transaction_id, invoice_number;

-- name: one
SELECT v.*, coalesce((SELECT max(s.sign_off_id) FROM prepaid.sign_offs s WHERE s.task_id = v.task_id), 0) AS seen,
       (SELECT i.invoice_number FROM prepaid.transactions t JOIN prepaid.invoices i USING (invoice_id)
        WHERE t.transaction_id = v.transaction_id) AS assigned_to_invoice
FROM prepaid.parked_payments v WHERE v.task_id = :task;

-- name: assign
SELECT prepaid.assign_record(:record, :invoice_number, :note);

-- name: refunds
SELECT k.task_id, k.opened_on, k.due_on, k.assigned_to, k.service_plan_id, n.credit_note_number, n.currency,
       n.total, n.applied, n.refund, n.reason, c.customer_ref, c.name AS customer_name, k.first_approved_by
FROM prepaid.tasks k
JOIN prepaid.credit_notes n USING (credit_note_id)
JOIN prepaid.customers c USING (customer_id)
WHERE k.kind = 'payment_refund' AND k.status = 'Open' AND k.task_id > :after
  AND (CAST(:search AS text) IS NULL OR position(lower(:search) IN lower(
        concat_ws(' ', n.credit_note_number, c.customer_ref, c.name, n.reason))) > 0
       OR n.refund = ANY (CAST(:amounts AS numeric[])))
  AND (:show <> 'overdue' OR k.due_on < CAST(:today AS date))
  AND (:show <> 'mine' OR k.assigned_to = CAST(:person AS text))
ORDER BY k.task_id LIMIT :rows;

-- name: refund
SELECT k.task_id, k.status, k.opened_on, k.due_on, k.assigned_to, k.service_plan_id, n.credit_note_number,
       n.currency, n.net, n.tax, n.total, n.applied, n.refund, n.reason, n.note AS why, n.issued_on,
       n.issued_by, c.customer_ref, c.name AS customer_name, k.first_approved_by, k.first_approved_at,
       k.decision, k.note, k.decided_by, k.decided_at,
       coalesce((SELECT max(s.sign_off_id) FROM prepaid.sign_offs s WHERE s.task_id = k.task_id), 0) AS seen
FROM prepaid.tasks k
JOIN prepaid.credit_notes n USING (credit_note_id)
JOIN prepaid.customers c USING (customer_id)
WHERE k.kind = 'payment_refund' AND k.task_id = :task;
