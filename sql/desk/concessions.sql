-- Prices below the list that finance is asked about.

-- name: list
SELECT task_id, opened_on, due_on, assigned_to, service_plan_id, customer_ref, customer_name, plan_name, currency,
       list_net, net, why, asked_by, approvals_needed, first_approved_by, why_not
FROM prepaid.price_concessions
WHERE status = 'Open' AND task_id > :after
  AND (CAST(:search AS text) IS NULL OR position(lower(:search) IN lower(
        concat_ws(' ', customer_ref, customer_name, subscription_ref, plan_name, asked_by, why))) > 0
       OR net = ANY (CAST(:amounts AS numeric[])))
  AND (:show <> 'overdue' OR due_on < CAST(:today AS date))
  AND (:show <> 'mine' OR assigned_to = CAST(:person AS text))
ORDER BY task_id LIMIT :rows;

-- name: one
SELECT v.*, coalesce((SELECT max(s.sign_off_id) FROM prepaid.sign_offs s WHERE s.task_id = v.task_id), 0) AS seen
FROM prepaid.price_concessions v WHERE v.task_id = :task;
