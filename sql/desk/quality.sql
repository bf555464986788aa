-- What customer success looks at: whether every feature is reachable.

-- name: list
-- As the payments: the features are looked up one after the other, until the page is full.
SELECT v.task_id, v.kind, v.opened_on, v.due_on, v.assigned_to, v.service_plan_id, v.customer_ref,
       v.customer_name, v.plan_name, v.features, v.what_failed
FROM (
    SELECT task_id FROM prepaid.tasks
    WHERE kind IN ('quality_check', 'quality_follow_up') AND status = 'Open' AND task_id > :after
      AND (:show <> 'follow_up' OR kind = 'quality_follow_up')
      AND (:show <> 'overdue' OR due_on < CAST(:today AS date))
      AND (:show <> 'mine' OR assigned_to = CAST(:person AS text))
    ORDER BY task_id OFFSET 0
) k
CROSS JOIN LATERAL (SELECT * FROM prepaid.quality_checks WHERE task_id = k.task_id OFFSET 0) v
WHERE CAST(:search AS text) IS NULL OR position(lower(:search) IN lower(
        concat_ws(' ', v.customer_ref, v.customer_name, v.features))) > 0
ORDER BY k.task_id LIMIT :rows;

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
