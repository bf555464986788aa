-- Publishing of step 12, retention and deferred revenue: after the months themselves, in the same
-- transaction. The staged months replace the published ones.

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
