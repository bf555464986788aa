-- Acts on what customer success decided: passed closes, failed holds the plan and asks for a
-- follow-up. A passed follow-up releases the hold. The next renewal is not blocked by any of it.

-- name: close
WITH closing AS (
    UPDATE prepaid.tasks SET closed_at = clock_timestamp()
    WHERE task_id IN (
        SELECT task_id FROM prepaid.tasks
        WHERE kind IN ('quality_check', 'quality_follow_up') AND status = 'Done' AND closed_at IS NULL
        ORDER BY task_id LIMIT :limit
        FOR UPDATE SKIP LOCKED)
    RETURNING task_id, service_plan_id, decision, note, decided_by
), follow_ups AS (
    INSERT INTO prepaid.tasks (kind, service_plan_id, parent_task_id, assigned_role, opened_on, due_on)
    SELECT 'quality_follow_up', service_plan_id, task_id, prepaid.team_of('quality_follow_up'),
           :as_of, prepaid.task_due_on(:as_of)
    FROM closing WHERE decision = 'failed' ORDER BY task_id
), held AS (
    INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
    SELECT service_plan_id, 'quality_failed', format(
        'The quality check failed: %s. Put it right and decide the follow-up task; '
        'passed releases this hold.', note)
    FROM closing WHERE decision = 'failed'
    ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING
), released AS (
    UPDATE prepaid.holds h
    SET released_at = clock_timestamp(), released_by = c.decided_by, note = 'the follow-up passed'
    FROM closing c
    WHERE c.decision = 'passed' AND h.service_plan_id = c.service_plan_id
      AND h.reason_code = 'quality_failed' AND h.released_at IS NULL
)
SELECT count(*) FILTER (WHERE decision = 'passed') AS passed,
       count(*) FILTER (WHERE decision = 'failed') AS failed
FROM closing;

-- name: quality_checks_left
-- What was passed over because somebody had locked it: here that is waited for.
SELECT count(*) FROM (
    SELECT FROM prepaid.tasks
    WHERE kind IN ('quality_check', 'quality_follow_up') AND status = 'Done' AND closed_at IS NULL
    ORDER BY task_id LIMIT 1
    FOR UPDATE) passed_over;
