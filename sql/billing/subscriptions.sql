-- Cancelling and changing subscriptions and their plans, under a person's role.

-- name: named
-- What a name can mean: a subscription's reference, a plan's id, the number of an invoice.
SELECT 'subscription' AS what, s.subscription_id, CAST(NULL AS bigint) AS service_plan_id
FROM prepaid.subscriptions s WHERE s.subscription_ref = :name
UNION ALL
SELECT 'plan', p.subscription_id, p.service_plan_id
FROM prepaid.service_plans p WHERE CAST(p.service_plan_id AS text) = :name
UNION ALL
SELECT 'plan', p.subscription_id, p.service_plan_id
FROM prepaid.service_plans p JOIN prepaid.invoices i USING (service_plan_id)
WHERE i.invoice_number = :name;

-- name: cancel
SELECT * FROM prepaid.cancel(:subscription, :plan, :at_once, CAST(:on_date AS date), :note);

-- name: leaves
SELECT subscription_ref, cancelled_on FROM prepaid.subscriptions WHERE subscription_id = :subscription;

-- name: change
SELECT prepaid.change_plan(:subscription, :plan_code, CAST(:price AS numeric), CAST(:addons AS text[]),
                           CAST(:on_date AS date), :note) AS service_plan_id;

-- name: waiting
-- A plan that waits, with what it will be or has been invoiced for.
SELECT p.service_plan_id, p.kind, p.planned_start, p.end_date, l.plan_code,
       p.retrieved_at IS NOT NULL AS retrieved, i.invoice_number
FROM prepaid.service_plans p
JOIN prepaid.plans l USING (plan_id)
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.service_plan_id = :plan;
