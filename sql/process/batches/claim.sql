-- A batch is claimed with SKIP LOCKED: two workers never take the same plan, and neither waits. When
-- another worker had the plan between our snapshot and our lock, PostgreSQL looks again at the locked
-- row (u) and at nothing else. What tells us that the plan is not free any more must be in it: a claim
-- leaves its batch there when it is done, and the last step takes the row away.

-- name: open_batch
INSERT INTO prepaid.batches (queue, as_of, run_id, leased_until)
VALUES (:queue, :as_of, :run_id, clock_timestamp() + make_interval(secs => :lease_seconds))
RETURNING batch_id;

-- name: open_renewals
WITH due AS (
    SELECT u.service_plan_id
    FROM prepaid.unsettled_plans u
    JOIN prepaid.ready_to_invoice r USING (service_plan_id)
    WHERE r.planned_start <= CAST(:as_of AS date) + prepaid.days_within_term(:lead_days, r.term_days)
      AND u.batch_id IS NOT DISTINCT FROM r.batch_id
    ORDER BY u.service_plan_id LIMIT :limit
    FOR UPDATE OF u SKIP LOCKED
)
UPDATE prepaid.unsettled_plans u SET batch_id = :batch_id
FROM due WHERE u.service_plan_id = due.service_plan_id;

-- name: settle_renewals
WITH due AS (
    SELECT u.service_plan_id
    FROM prepaid.unsettled_plans u
    JOIN prepaid.ready_to_settle r USING (service_plan_id)
    WHERE u.batch_id IS NOT DISTINCT FROM r.batch_id
    ORDER BY u.service_plan_id LIMIT :limit
    FOR UPDATE OF u SKIP LOCKED
)
UPDATE prepaid.unsettled_plans u SET batch_id = :batch_id
FROM due WHERE u.service_plan_id = due.service_plan_id;

-- name: open_renewals_left
-- What a claim has passed over because somebody had locked it: here that is waited for. One row, so that
-- nobody waits for another one that is locked meanwhile.
SELECT count(*) FROM (
    SELECT FROM prepaid.unsettled_plans u
    JOIN prepaid.ready_to_invoice r USING (service_plan_id)
    WHERE r.planned_start <= CAST(:as_of AS date) + prepaid.days_within_term(:lead_days, r.term_days)
      AND u.batch_id IS NOT DISTINCT FROM r.batch_id
    ORDER BY u.service_plan_id LIMIT 1
    FOR UPDATE OF u) passed_over;

-- name: settle_renewals_left
SELECT count(*) FROM (
    SELECT FROM prepaid.unsettled_plans u
    JOIN prepaid.ready_to_settle r USING (service_plan_id)
    WHERE u.batch_id IS NOT DISTINCT FROM r.batch_id
    ORDER BY u.service_plan_id LIMIT 1
    FOR UPDATE OF u) passed_over;

-- name: business_date
-- All steps of a batch work for the business date it was claimed on, also after midnight.
SELECT as_of FROM prepaid.batches WHERE batch_id = :batch_id;
