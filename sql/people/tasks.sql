-- The tasks that wait for a decision, oldest first, with what is needed to decide.

-- name: open
SELECT k.task_id, k.kind, k.assigned_role, k.opened_on, k.due_on, k.assigned_to, k.first_approved_by,
       k.service_plan_id,
       coalesce(i.invoice_number, t.invoice_number) AS invoice_number,
       coalesce(c.customer_ref, t.customer_ref) AS customer_ref,
       CASE k.kind WHEN 'payment_review' THEN t.currency WHEN 'payment_refund' THEN n.currency
            WHEN 'price_concession' THEN k.concession ->> 'currency' ELSE i.currency END AS currency,
       CASE k.kind WHEN 'payment_review' THEN t.amount WHEN 'payment_refund' THEN n.refund
            WHEN 'price_concession' THEN CAST(k.concession ->> 'net' AS numeric) ELSE i.payable END AS total,
       v.agrees,
       -- Where the rules leave nobody, the task says so.
       nullif(concat_ws('; ', CASE WHEN u.task_id IS NOT NULL THEN
           format('NOBODY in %s may decide it: add somebody to the team', u.team) END,
       CASE k.kind WHEN 'payment_review'
           THEN coalesce(t.outcome_reason, 'assigned to an invoice: the next run matches it')
            WHEN 'payment_verification' THEN v.difference
            WHEN 'price_concession' THEN format('net %s instead of %s: %s', k.concession ->> 'net',
                k.concession ->> 'list_net', k.concession ->> 'why')
            WHEN 'payment_refund' THEN format('pay back %s %s: credit note %s%s', n.refund, n.currency,
                n.credit_note_number, CASE WHEN i.status = 'Open' THEN
                '; its invoice is open again, the payment was reversed: clear that up first' END)
            ELSE q.features END), '') AS detail
FROM prepaid.tasks k
LEFT JOIN prepaid.invoices i USING (invoice_id)
LEFT JOIN prepaid.credit_notes n ON n.credit_note_id = k.credit_note_id
LEFT JOIN prepaid.transactions t ON t.transaction_id = k.transaction_id
LEFT JOIN prepaid.service_plans p ON p.service_plan_id = k.service_plan_id
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.payment_verifications v ON v.task_id = k.task_id
LEFT JOIN prepaid.quality_checks q ON q.task_id = k.task_id
LEFT JOIN prepaid.tasks_nobody_may_decide u ON u.task_id = k.task_id
WHERE k.status = 'Open' AND (CAST(:kind AS text) IS NULL OR k.kind = :kind)
ORDER BY k.task_id;

-- name: agreeing
-- Those that the acting person may approve.
SELECT task_id, currency, total FROM prepaid.payment_verifications
WHERE status = 'Open' AND agrees AND may_decide ORDER BY task_id;

-- name: kinds
SELECT task_id, kind FROM prepaid.tasks WHERE task_id = ANY (:tasks);

-- name: decide
SELECT prepaid.decide_tasks(CAST(:tasks AS bigint[]), :decision, :note);

-- name: reassign
SELECT prepaid.reassign_tasks(CAST(:tasks AS bigint[]), CAST(:to AS text), CAST(:note AS text));
