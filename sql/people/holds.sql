-- Held plans with the reason and what a person can do.

-- name: held
SELECT h.service_plan_id, p.status, c.customer_ref, h.reason_code, h.held_at, h.text
FROM prepaid.holds h
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
WHERE h.released_at IS NULL
ORDER BY h.held_at, h.hold_id;

-- name: release
SELECT prepaid.release_holds(:plan, :note);
