-- A plan's whole story, and what can be done about it.

-- name: find
SELECT service_plan_id FROM prepaid.plan_summaries
WHERE invoice_number = upper(:name) OR CAST(service_plan_id AS text) = :name LIMIT 1;

-- name: one
SELECT * FROM prepaid.plan_summaries WHERE service_plan_id = :plan;

-- name: events
SELECT at, event, actor, what FROM prepaid.plan_events WHERE service_plan_id = :plan ORDER BY at, place, id;

-- name: address
SELECT prepaid.set_customer_email(:plan, :address);

-- name: void
SELECT prepaid.void_invoice(:invoice_number, :reissue, :note);

-- name: subscription
SELECT subscription_id FROM prepaid.service_plans WHERE service_plan_id = :plan;
