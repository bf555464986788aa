-- Publishing of step 12: the staged months replace the published ones, all tables or none. An empty
-- month has no staged rows, and its old rows go all the same.

-- name: lock
-- One computation of monthly figures at a time (an hourly run against a backfill): whoever staged
-- later publishes later. The number is ours alone: 'prepaid revenue' has no meaning to PostgreSQL.
SELECT pg_advisory_xact_lock(7281204);

-- name: months
INSERT INTO revenue.months (month, as_of, run_id)
SELECT month, as_of, run_id FROM revenue.months_staging WHERE run_id = :run_id
ON CONFLICT (month) DO UPDATE
    SET as_of = excluded.as_of, run_id = excluded.run_id, published_at = clock_timestamp();

-- name: delete_mrr
DELETE FROM revenue.mrr
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_mrr
INSERT INTO revenue.mrr (month, currency, plan_code, active_plans, mrr)
SELECT month, currency, plan_code, active_plans, mrr
FROM revenue.mrr_staging WHERE run_id = :run_id;

-- name: delete_movements
DELETE FROM revenue.mrr_movements
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_movements
INSERT INTO revenue.mrr_movements (month, currency, movement, customers, amount)
SELECT month, currency, movement, customers, amount
FROM revenue.mrr_movements_staging WHERE run_id = :run_id;

-- name: delete_bridge
DELETE FROM revenue.mrr_bridge
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_bridge
INSERT INTO revenue.mrr_bridge
    (month, currency, opening_mrr, closing_mrr, opening_customers, closing_customers)
SELECT month, currency, opening_mrr, closing_mrr, opening_customers, closing_customers
FROM revenue.mrr_bridge_staging WHERE run_id = :run_id;

-- name: delete_activations
DELETE FROM revenue.plan_activations
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_activations
INSERT INTO revenue.plan_activations (month, currency, plan_code, kind, plans, net_amount)
SELECT month, currency, plan_code, kind, plans, net_amount
FROM revenue.plan_activations_staging WHERE run_id = :run_id;
