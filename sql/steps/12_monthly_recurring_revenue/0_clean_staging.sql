-- Takes a run's staged rows away: before it stages again (a retried run keeps its id) and after it
-- has published. Rows that failed validation stay for a week, to be looked at, then go as well.

-- name: choose
CREATE TEMPORARY TABLE staging_to_clean ON COMMIT DROP AS
SELECT :run_id AS run_id
UNION
SELECT run_id FROM revenue.months_staging
WHERE staged_at < clock_timestamp() - interval '7 days';

-- name: mrr
DELETE FROM revenue.mrr_staging WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: mrr_by_country
DELETE FROM revenue.mrr_by_country_staging WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: movements
DELETE FROM revenue.mrr_movements_staging WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: bridge
DELETE FROM revenue.mrr_bridge_staging WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: activations
DELETE FROM revenue.plan_activations_staging WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: activations_by_country
DELETE FROM revenue.activations_by_country_staging
WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: reversals
DELETE FROM revenue.payment_reversals_staging
WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: credit_notes
DELETE FROM revenue.credit_notes_issued_staging
WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: control
DELETE FROM revenue.control_staging WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: renewal_outcomes
DELETE FROM revenue.renewal_outcomes_staging
WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: retention
DELETE FROM revenue.retention_staging
WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: cohorts
DELETE FROM revenue.cohorts_staging
WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: deferred_revenue
DELETE FROM revenue.deferred_revenue_staging
WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: reconciliation
DELETE FROM revenue.reconciliation_staging
WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: retention_control
DELETE FROM revenue.retention_control_staging
WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: report
DELETE FROM revenue.monthly_report_staging WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: months
DELETE FROM revenue.months_staging WHERE run_id IN (SELECT run_id FROM staging_to_clean);

-- name: done
DROP TABLE staging_to_clean;
