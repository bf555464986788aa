-- What every step does around its own statements, in the same transaction.

-- name: plans_of_batch
-- Ids travel as one text in the form of an array: ten thousand rows would cost the worker more time
-- than they cost the database.
SELECT CAST(ARRAY(
    SELECT service_plan_id FROM prepaid.unsettled_plans
    WHERE batch_id = :batch_id ORDER BY service_plan_id) AS text);

-- name: renew_lease
UPDATE prepaid.batches SET leased_until = clock_timestamp() + make_interval(secs => :lease_seconds)
WHERE batch_id = :batch_id;

-- name: lock_plans
-- A worker that was thought dead finds no rows here: its plans have a new batch_id. Both rows are
-- locked, against people who act on the plan and against other claims, in this order: whoever changes
-- a plan and takes its claim away does it in the same one. The step's statements get the ids, not the
-- batch: the planner knows the length of an array, while of a batch made a moment ago it expects one row.
-- The steps filter the plans by it, and go from there by key: OFFSET 0, docs/sql.md.
SELECT count(*) AS number, CAST(coalesce(array_agg(locked.service_plan_id), '{}') AS text) AS plans
FROM unnest(CAST(:plans AS bigint[])) asked (service_plan_id)
CROSS JOIN LATERAL (
    SELECT p.service_plan_id FROM prepaid.service_plans p
    WHERE p.service_plan_id = asked.service_plan_id FOR NO KEY UPDATE) plan
CROSS JOIN LATERAL (
    SELECT u.service_plan_id FROM prepaid.unsettled_plans u
    WHERE u.service_plan_id = plan.service_plan_id AND u.batch_id = :batch_id FOR UPDATE) locked;

-- name: lock_free_plans
-- The same without waiting, after a wait that was too long: a plan is passed over while somebody else has
-- locked it, or a task or an invoice of it.
WITH plan AS MATERIALIZED (
    SELECT p.service_plan_id FROM prepaid.service_plans p
    WHERE p.service_plan_id = ANY (CAST(:plans AS bigint[]))
    ORDER BY p.service_plan_id FOR NO KEY UPDATE SKIP LOCKED
), claim AS MATERIALIZED (
    SELECT u.service_plan_id FROM prepaid.unsettled_plans u
    WHERE u.service_plan_id = ANY (CAST(:plans AS bigint[])) AND u.batch_id = :batch_id
    ORDER BY u.service_plan_id FOR UPDATE SKIP LOCKED
), task AS MATERIALIZED (
    SELECT k.task_id FROM prepaid.tasks k
    WHERE k.service_plan_id = ANY (CAST(:plans AS bigint[])) ORDER BY k.task_id
    FOR NO KEY UPDATE SKIP LOCKED
), invoice AS MATERIALIZED (
    SELECT i.invoice_id FROM prepaid.invoices i
    WHERE i.service_plan_id = ANY (CAST(:plans AS bigint[])) ORDER BY i.invoice_id
    FOR NO KEY UPDATE SKIP LOCKED
), free AS MATERIALIZED (
    SELECT service_plan_id FROM plan JOIN claim USING (service_plan_id)
    EXCEPT
    SELECT k.service_plan_id FROM prepaid.tasks k
    WHERE k.service_plan_id = ANY (CAST(:plans AS bigint[])) AND k.task_id NOT IN (SELECT task_id FROM task)
    EXCEPT
    SELECT i.service_plan_id FROM prepaid.invoices i
    WHERE i.service_plan_id = ANY (CAST(:plans AS bigint[]))
      AND i.invoice_id NOT IN (SELECT invoice_id FROM invoice)
)
SELECT count(*) AS number, CAST(coalesce(array_agg(service_plan_id), '{}') AS text) AS plans FROM free;

-- name: leave_locked
-- How many were passed over. They leave the batch, for the next run to claim them; also when it is their
-- claim that somebody has locked, they are free once the batch is finished.
WITH passed_over AS MATERIALIZED (
    SELECT u.service_plan_id FROM prepaid.unsettled_plans u
    WHERE u.service_plan_id = ANY (CAST(:asked AS bigint[])) AND u.batch_id = :batch_id
      AND u.service_plan_id <> ALL (CAST(:plans AS bigint[]))
), free AS (
    SELECT u.service_plan_id FROM prepaid.unsettled_plans u
    WHERE u.service_plan_id IN (SELECT service_plan_id FROM passed_over)
    ORDER BY u.service_plan_id FOR UPDATE SKIP LOCKED
), leaving AS (
    UPDATE prepaid.unsettled_plans u SET batch_id = NULL
    FROM free f WHERE u.service_plan_id = f.service_plan_id
)
SELECT count(*) FROM passed_over;

-- name: leave_held
WITH held AS MATERIALIZED (
    SELECT DISTINCT service_plan_id FROM prepaid.holds
    WHERE service_plan_id = ANY (:plans) AND released_at IS NULL
)
UPDATE prepaid.unsettled_plans u SET batch_id = NULL
FROM held WHERE u.service_plan_id = held.service_plan_id AND u.batch_id = :batch_id
RETURNING u.service_plan_id;

-- name: hold_failed_plan
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT service_plan_id, 'step_failed', :text FROM prepaid.unsettled_plans
WHERE service_plan_id = ANY (:plans) AND batch_id = :batch_id
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: finish_batch
UPDATE prepaid.batches SET finished_at = clock_timestamp(), leased_until = clock_timestamp()
WHERE batch_id = :batch_id;
