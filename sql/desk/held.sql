-- Plans that wait for a person to put something right.

-- name: list
SELECT v.hold_id, v.service_plan_id, v.status, v.customer_ref, v.customer_name, v.plan_name,
       v.invoice_number, v.reason_code, v.text, v.held_at, v.released_by_team
FROM (SELECT hold_id FROM prepaid.holds
      WHERE released_at IS NULL AND hold_id > :after ORDER BY hold_id OFFSET 0) h
CROSS JOIN LATERAL (SELECT * FROM prepaid.held_plans WHERE hold_id = h.hold_id OFFSET 0) v
WHERE CAST(:search AS text) IS NULL OR position(lower(:search) IN lower(
        concat_ws(' ', v.customer_ref, v.customer_name, v.invoice_number, v.plan_name, v.text))) > 0
ORDER BY h.hold_id LIMIT :rows;

-- name: of_plan
SELECT hold_id, reason_code, text, held_at, released_by_team
FROM prepaid.held_plans WHERE service_plan_id = :plan ORDER BY hold_id;

-- name: release
SELECT prepaid.release_holds(:plan, :note);
