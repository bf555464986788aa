-- What is measured. Only counts, ages and the product's own words, never what a customer is called.

-- name: plans
-- Each by an index: a count of all plans by their status would read the whole table.
WITH waiting AS MATERIALIZED (
    SELECT p.status, count(*) AS plans FROM prepaid.unsettled_plans u
    JOIN prepaid.service_plans p USING (service_plan_id)
    WHERE p.status IN ('Pending', 'Processing') GROUP BY 1
), counted AS MATERIALIZED (
    SELECT (SELECT count(*) FROM prepaid.service_plans WHERE status = 'Active') AS active,
           (SELECT count(*) FROM prepaid.service_plans WHERE status IN ('Active', 'Expired')) AS had,
           (SELECT count(*) FROM prepaid.service_plans) AS everything
)
SELECT s.status, coalesce(w.plans, 0) AS plans
FROM (VALUES ('Pending'), ('Processing')) s (status) LEFT JOIN waiting w USING (status)
UNION ALL SELECT 'Active', active FROM counted
UNION ALL SELECT 'Expired', had - active FROM counted
UNION ALL SELECT 'Cancelled', everything - had - (SELECT coalesce(sum(plans), 0) FROM waiting) FROM counted;

-- name: holds
SELECT reason_code, count(*) AS plans FROM prepaid.holds WHERE released_at IS NULL
GROUP BY 1 ORDER BY 1;

-- name: unsettled
-- Not those that wait for a person: held ones.
SELECT count(*) AS plans,
       coalesce(extract(epoch FROM clock_timestamp() - min(p.created_at)), 0) AS oldest_seconds
FROM prepaid.unsettled_plans u JOIN prepaid.service_plans p USING (service_plan_id)
WHERE NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = u.service_plan_id AND h.released_at IS NULL);

-- name: tasks
SELECT kind, count(*) AS tasks, extract(epoch FROM clock_timestamp() - min(opened_at)) AS oldest_seconds
FROM prepaid.tasks WHERE status = 'Open' GROUP BY 1 ORDER BY 1;

-- name: mails
-- Two reads, each with an index of its own; those that were sent are not counted.
SELECT status, count(*) AS mails, extract(epoch FROM clock_timestamp() - min(created_at)) AS oldest_seconds
FROM prepaid.emails WHERE status IN ('pending', 'sending') GROUP BY 1
UNION ALL
SELECT status, count(*), extract(epoch FROM clock_timestamp() - min(created_at))
FROM prepaid.emails WHERE status IN ('failed', 'unknown') GROUP BY 1
ORDER BY 1;

-- name: batches
SELECT count(*) AS batches, count(*) FILTER (WHERE leased_until < clock_timestamp()) AS abandoned
FROM prepaid.batches WHERE finished_at IS NULL;

-- name: has_runs
SELECT to_regclass('dagster.runs') IS NOT NULL;

-- name: jobs
-- The latest run of each job, and its latest success: by the index on job and id, whatever there is.
WITH RECURSIVE jobs (job) AS (
    SELECT min(pipeline_name) FROM dagster.runs
    UNION ALL
    SELECT (SELECT min(r.pipeline_name) FROM dagster.runs r WHERE r.pipeline_name > j.job)
    FROM jobs j WHERE j.job IS NOT NULL
)
SELECT j.job, success.end_time AS last_success, success.end_time - success.start_time AS seconds,
       coalesce(latest.status = 'FAILURE', false) AS failed
FROM jobs j
LEFT JOIN LATERAL (
    SELECT r.start_time, r.end_time FROM dagster.runs r
    WHERE r.pipeline_name = j.job AND r.status = 'SUCCESS' ORDER BY r.id DESC LIMIT 1) success ON true
LEFT JOIN LATERAL (
    SELECT r.status FROM dagster.runs r
    WHERE r.pipeline_name = j.job AND r.status IN ('SUCCESS', 'FAILURE', 'CANCELED')
    ORDER BY r.id DESC LIMIT 1) latest ON true
WHERE j.job IS NOT NULL AND j.job NOT LIKE '\_\_%' ORDER BY 1;

-- name: live_runs
SELECT r.status, count(*) AS runs,
       extract(epoch FROM clock_timestamp() - min(r.create_timestamp AT TIME ZONE 'UTC')) AS oldest_seconds
FROM dagster.runs r
WHERE r.status IN ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')
GROUP BY 1 ORDER BY 1;

-- name: daemon
SELECT extract(epoch FROM clock_timestamp() - max(timestamp AT TIME ZONE 'UTC')) AS seconds
FROM dagster.daemon_heartbeats;

-- name: seals
-- Entries that are not sealed yet have ids above the newest seal's.
SELECT extract(epoch FROM clock_timestamp() - max(sealed_at)) AS seconds FROM prepaid.audit_seals;

-- name: sealed_since
-- By the primary key: the seals of a day are few.
SELECT CAST(coalesce(sum(entries), 0) AS bigint) AS entries FROM prepaid.audit_seals
WHERE seal_number > :seal_number;
