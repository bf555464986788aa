-- A batch is claimed with SKIP LOCKED: two workers never take the same plan, and neither waits. When
-- another worker had the plan between our snapshot and our lock, PostgreSQL looks again at the locked
-- row (p) and at nothing else: what tells us that the plan is not free any more is asked of p.

-- name: open_batch
INSERT INTO prepaid.batches (queue, as_of, run_id, leased_until)
VALUES (:queue, :as_of, :run_id, clock_timestamp() + make_interval(secs => :lease_seconds))
RETURNING batch_id;

-- name: open_renewals
WITH due AS (
    SELECT p.service_plan_id
    FROM prepaid.service_plans p
    JOIN prepaid.ready_to_invoice r USING (service_plan_id)
    WHERE r.planned_start <= CAST(:as_of AS date) + prepaid.days_within_term(:lead_days, r.term_days)
      AND p.batch_id IS NOT DISTINCT FROM r.batch_id AND p.invoiced_at IS NULL
    ORDER BY p.service_plan_id LIMIT :limit
    FOR UPDATE OF p SKIP LOCKED
)
UPDATE prepaid.service_plans p SET batch_id = :batch_id
FROM due WHERE p.service_plan_id = due.service_plan_id;

-- name: settle_renewals
WITH due AS (
    SELECT p.service_plan_id
    FROM prepaid.service_plans p
    JOIN prepaid.ready_to_settle r USING (service_plan_id)
    WHERE p.batch_id IS NOT DISTINCT FROM r.batch_id AND p.settled_at IS NULL
    ORDER BY p.service_plan_id LIMIT :limit
    FOR UPDATE OF p SKIP LOCKED
)
UPDATE prepaid.service_plans p SET batch_id = :batch_id
FROM due WHERE p.service_plan_id = due.service_plan_id;

-- name: business_date
-- All steps of a batch work for the business date it was claimed on, also after midnight.
SELECT as_of FROM prepaid.batches WHERE batch_id = :batch_id;
