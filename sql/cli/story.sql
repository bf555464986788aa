-- Everything about one plan.

-- name: find
-- A plan is named by its id or by the number of an invoice of it.
SELECT p.service_plan_id
FROM prepaid.service_plans p
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.invoice_number = :name
WHERE CAST(p.service_plan_id AS text) = :name OR i.invoice_id IS NOT NULL;

-- name: plan
SELECT p.service_plan_id, p.origin, p.kind, p.status, s.subscription_ref, c.customer_ref,
       l.plan_code, p.start_date, p.end_date, p.currency, p.net_amount, p.previous_plan_id,
       i.invoice_number, i.status AS invoice_status, i.net, i.tax, i.total
FROM prepaid.service_plans p
JOIN prepaid.subscriptions s USING (subscription_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
JOIN prepaid.plans l ON l.plan_id = p.plan_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.service_plan_id = :plan;

-- name: events
-- The audit log is the thread; records, sign-offs and holds add their own words.
SELECT at, event, actor, what FROM (
    SELECT a.at, a.event, a.actor, 1 AS place, a.audit_id AS id,
           concat_ws(' ', a.before || ' ->',
               CASE a.event WHEN 'hold_released' THEN 'released' ELSE a.after END,
               '(' || CASE a.event WHEN 'hold_released' THEN h.note ELSE a.detail END || ')',
               CASE a.event WHEN 'hold_placed' THEN h.text END, q.note) AS what
    FROM prepaid.audit_log a
    LEFT JOIN prepaid.holds h ON a.entity = 'hold' AND h.hold_id = a.entity_id
    LEFT JOIN prepaid.requests q ON a.entity = 'request' AND q.request_id = a.entity_id
    WHERE a.service_plan_id = :plan
    UNION ALL
    SELECT k.opened_at, 'task_opened', 'pipeline', 2, k.task_id,
           format('task %s: %s for %s', k.task_id, k.kind, k.assigned_role)
    FROM prepaid.tasks k WHERE k.service_plan_id = :plan
    UNION ALL
    SELECT s.decided_at, 'sign_off', s.decided_by, 3, s.sign_off_id,
           concat_ws(' ', format('task %s: %s', s.task_id, s.decision),
               CASE WHEN s.note IS NOT NULL THEN '(' || s.note || ')' END)
    FROM prepaid.sign_offs s JOIN prepaid.tasks k USING (task_id) WHERE k.service_plan_id = :plan
    UNION ALL
    SELECT t.received_at, 'payment_record', coalesce(t.provider, 'unknown provider'), 4,
           t.transaction_id,
           concat_ws(' ', t.provider_ref, t.status, t.amount, t.currency, 'for', t.invoice_number)
    FROM prepaid.transactions t JOIN prepaid.invoices i ON i.invoice_number = t.invoice_number
    WHERE i.service_plan_id = :plan
    UNION ALL
    SELECT e.created_at, 'email_ordered', 'pipeline', 5, e.email_id,
           format('%s to %s: %s', e.template, e.recipient, e.status)
    FROM prepaid.emails e WHERE e.service_plan_id = :plan
) events
ORDER BY at, place, id;
