-- Publishing of step 12: the staged months replace the published ones, all tables or none. An empty
-- month has no staged rows, and its old rows go all the same.

-- name: months
INSERT INTO revenue.months (month, as_of, run_id, fingerprint, computed_at)
SELECT month, as_of, run_id, fingerprint, staged_at
FROM revenue.months_staging WHERE run_id = :run_id
ON CONFLICT (month) DO UPDATE
    SET as_of = excluded.as_of, run_id = excluded.run_id, published_at = clock_timestamp(),
        fingerprint = excluded.fingerprint, computed_at = excluded.computed_at;

-- name: delete_mrr
DELETE FROM revenue.mrr
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_mrr
INSERT INTO revenue.mrr (month, currency, plan_code, active_plans, mrr)
SELECT month, currency, plan_code, active_plans, mrr
FROM revenue.mrr_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_mrr_by_country
DELETE FROM revenue.mrr_by_country
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_mrr_by_country
INSERT INTO revenue.mrr_by_country (month, currency, country, active_plans, customers, mrr)
SELECT month, currency, country, active_plans, customers, mrr
FROM revenue.mrr_by_country_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_movements
DELETE FROM revenue.mrr_movements
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_movements
INSERT INTO revenue.mrr_movements (month, currency, movement, customers, amount)
SELECT month, currency, movement, customers, amount
FROM revenue.mrr_movements_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_bridge
DELETE FROM revenue.mrr_bridge
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_bridge
INSERT INTO revenue.mrr_bridge
    (month, currency, opening_mrr, closing_mrr, opening_customers, closing_customers)
SELECT month, currency, opening_mrr, closing_mrr, opening_customers, closing_customers
FROM revenue.mrr_bridge_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_activations
DELETE FROM revenue.plan_activations
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_activations
INSERT INTO revenue.plan_activations (month, currency, plan_code, kind, plans, net_amount)
SELECT month, currency, plan_code, kind, plans, net_amount
FROM revenue.plan_activations_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_activations_by_country
DELETE FROM revenue.activations_by_country
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_activations_by_country
INSERT INTO revenue.activations_by_country (month, currency, country, kind, plans, net_amount)
SELECT month, currency, country, kind, plans, net_amount
FROM revenue.activations_by_country_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_reversals
DELETE FROM revenue.payment_reversals
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_reversals
INSERT INTO revenue.payment_reversals (month, currency, kind, records, amount)
SELECT month, currency, kind, records, amount
FROM revenue.payment_reversals_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_credit_notes
DELETE FROM revenue.credit_notes_issued
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_credit_notes
INSERT INTO revenue.credit_notes_issued (month, currency, credit_notes, net, tax, total)
SELECT month, currency, credit_notes, net, tax, total
FROM revenue.credit_notes_issued_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_renewal_outcomes
DELETE FROM revenue.renewal_outcomes
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_renewal_outcomes
INSERT INTO revenue.renewal_outcomes
    (month, currency, plan_code, country, due, on_time, in_grace, reactivated, cancelled,
     waiting, lapsed)
SELECT month, currency, plan_code, country, due, on_time, in_grace, reactivated, cancelled,
       waiting, lapsed
FROM revenue.renewal_outcomes_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_retention
DELETE FROM revenue.retention
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_retention
INSERT INTO revenue.retention
    (month, currency, window_months, customers_before, customers_kept, mrr_before, mrr_kept, mrr_now)
SELECT month, currency, window_months, customers_before, customers_kept, mrr_before, mrr_kept, mrr_now
FROM revenue.retention_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_cohorts
DELETE FROM revenue.cohorts
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_cohorts
INSERT INTO revenue.cohorts
    (month, currency, cohort, customers, customers_kept, mrr, mrr_kept, mrr_now)
SELECT month, currency, cohort, customers, customers_kept, mrr, mrr_kept, mrr_now
FROM revenue.cohorts_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_deferred_revenue
DELETE FROM revenue.deferred_revenue
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_deferred_revenue
INSERT INTO revenue.deferred_revenue
    (month, currency, opening, billed, recognised, refunded, closing)
SELECT month, currency, opening, billed, recognised, refunded, closing
FROM revenue.deferred_revenue_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: delete_reconciliation
DELETE FROM revenue.reconciliation
WHERE month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);

-- name: insert_reconciliation
INSERT INTO revenue.reconciliation
    (month, currency, line, amount)
SELECT month, currency, line, amount
FROM revenue.reconciliation_staging
WHERE run_id = :run_id
  AND month IN (SELECT month FROM revenue.months_staging WHERE run_id = :run_id);
