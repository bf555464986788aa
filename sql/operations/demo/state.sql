-- The demo writes only into an empty database, or into one that it has marked as its own.

-- name: is_demo
SELECT coalesce(obj_description(to_regnamespace('prepaid'), 'pg_namespace') = 'demo data', false);

-- name: is_empty
SELECT NOT EXISTS (SELECT FROM prepaid.customers)
   AND NOT EXISTS (SELECT FROM prepaid.transactions)
   AND NOT EXISTS (SELECT FROM prepaid.plans);

-- name: forget
DROP SCHEMA IF EXISTS revenue, prepaid CASCADE;

-- name: mark
COMMENT ON SCHEMA prepaid IS 'demo data';

-- name: outcomes
-- The plans that the pipeline opened, by their outcome.
SELECT CASE
        WHEN h.reason_code IS NOT NULL THEN 'held: ' || replace(h.reason_code, '_', ' ')
        WHEN p.activated_on IS NOT NULL THEN 'activated as ' || p.kind
        WHEN p.status = 'Cancelled' THEN 'cancelled: not paid in time'
        WHEN EXISTS (SELECT FROM prepaid.transactions t
                     WHERE t.invoice_id = i.invoice_id AND t.outcome = 'parked')
            THEN 'waiting: payment record parked'
        WHEN p.invoiced_at IS NOT NULL THEN 'waiting for its payment'
        ELSE 'waiting' END AS outcome,
    count(*) AS plans
FROM prepaid.service_plans p
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
LEFT JOIN LATERAL (SELECT h.reason_code FROM prepaid.holds h
                   WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL
                   ORDER BY h.hold_id LIMIT 1) h ON true
WHERE p.origin = 'pipeline'
GROUP BY 1 ORDER BY 1;

-- name: mrr
SELECT m.currency, round(sum(m.mrr), c.exponent) AS mrr, sum(m.active_plans) AS plans
FROM revenue.mrr m JOIN prepaid.currencies c USING (currency)
WHERE m.month = :month GROUP BY m.currency, c.exponent ORDER BY m.currency;
