-- name: ready_to_settle
-- Whichever of payment record and sign-off comes last makes the plan ready.
SELECT service_plan_id FROM prepaid.ready_to_settle LIMIT :limit;

-- name: quality_decided
SELECT task_id FROM prepaid.tasks
WHERE kind IN ('quality_check', 'quality_follow_up') AND status = 'Done' AND closed_at IS NULL
LIMIT :limit;
