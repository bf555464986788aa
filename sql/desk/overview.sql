-- How much waits, since when, and how long sign-offs take.

-- name: waiting
SELECT team, kind, open, oldest, overdue, mine FROM prepaid.desk_overview ORDER BY team, kind;

-- name: oldest
-- The oldest open tasks of the teams, whatever their kind.
SELECT k.task_id, k.kind, k.opened_on, k.due_on, k.assigned_to, s.customer_name, s.invoice_number
FROM (SELECT task_id, kind, opened_on, due_on, assigned_to, service_plan_id FROM prepaid.tasks
      WHERE status = 'Open' AND kind = ANY (:kinds) ORDER BY opened_on, task_id LIMIT 8) k
LEFT JOIN LATERAL (SELECT * FROM prepaid.plan_summaries
                   WHERE service_plan_id = k.service_plan_id OFFSET 0) s ON true
ORDER BY k.opened_on, k.task_id;

-- name: held
SELECT count(*) AS held, min(held_at) AS oldest FROM prepaid.held_plans;

-- name: times
SELECT kind, decided, extract(epoch FROM median) / 3600 AS median, extract(epoch FROM p90) / 3600 AS p90
FROM prepaid.sign_off_times WHERE month = date_trunc('month', CAST(:today AS date)) ORDER BY kind;
