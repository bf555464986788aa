-- Plans that wait for a person to put something right.

-- name: list
SELECT hold_id, service_plan_id, status, customer_ref, customer_name, plan_name, invoice_number, reason_code,
       text, held_at, released_by_team
FROM prepaid.held_plans
WHERE hold_id > :after
  AND (CAST(:search AS text) IS NULL OR position(lower(:search) IN lower(
        concat_ws(' ', customer_ref, customer_name, invoice_number, plan_name, text))) > 0)
ORDER BY hold_id LIMIT :rows;

-- name: of_plan
SELECT hold_id, reason_code, text, held_at, released_by_team
FROM prepaid.held_plans WHERE service_plan_id = :plan ORDER BY hold_id;

-- name: release
SELECT prepaid.release_holds(:plan, :note);
