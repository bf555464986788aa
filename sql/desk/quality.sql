-- What customer success looks at: whether every feature is reachable.

-- name: list
SELECT task_id, kind, opened_on, due_on, assigned_to, service_plan_id, customer_ref, customer_name, plan_name,
       features, what_failed
FROM prepaid.quality_checks
WHERE status = 'Open' AND task_id > :after
  AND (CAST(:search AS text) IS NULL OR position(lower(:search) IN lower(
        concat_ws(' ', customer_ref, customer_name, features))) > 0)
  AND (:show <> 'follow_up' OR kind = 'quality_follow_up')
  AND (:show <> 'overdue' OR due_on < CAST(:today AS date))
  AND (:show <> 'mine' OR assigned_to = CAST(:person AS text))
ORDER BY task_id LIMIT :rows;

-- name: one
SELECT v.*, coalesce((SELECT max(d.sign_off_id) FROM prepaid.decisions d WHERE d.task_id = v.task_id), 0) AS seen
FROM prepaid.quality_checks v WHERE v.task_id = :task;

-- name: features
SELECT feature, quantity FROM prepaid.quality_features WHERE task_id = :task ORDER BY place;

-- name: to_pass
SELECT v.task_id, v.kind, v.customer_name, v.features,
       coalesce((SELECT max(d.sign_off_id) FROM prepaid.decisions d WHERE d.task_id = v.task_id), 0) AS seen
FROM prepaid.quality_checks v
WHERE v.status = 'Open' AND v.task_id = ANY (CAST(:tasks AS bigint[])) ORDER BY v.task_id;

-- name: next
SELECT min(task_id) FROM prepaid.tasks WHERE kind LIKE 'quality%' AND status = 'Open' AND task_id > :task;
