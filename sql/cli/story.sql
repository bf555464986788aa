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
SELECT at, event, actor, what FROM prepaid.plan_events
WHERE service_plan_id = :plan ORDER BY at, place, id;
