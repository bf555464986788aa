-- Active -> Expired on the day the term ends (the range is [start, end)). A plan whose settling is
-- not finished waits for it: what was paid for is first confirmed, then ended. (One whose payment was
-- taken back has been confirmed before.)

-- name: expire
UPDATE prepaid.service_plans SET status = 'Expired'
WHERE service_plan_id IN (
    SELECT service_plan_id FROM prepaid.service_plans p
    WHERE status = 'Active' AND end_date <= :as_of
      AND (NOT EXISTS (SELECT FROM prepaid.unsettled_plans u
                       WHERE u.service_plan_id = p.service_plan_id)
           OR EXISTS (SELECT FROM prepaid.tasks k
                      WHERE k.service_plan_id = p.service_plan_id AND k.kind = 'quality_check'))
    ORDER BY end_date LIMIT :limit
    FOR UPDATE SKIP LOCKED);

-- name: ended_plans_left
-- What was passed over because somebody had locked it: here that is waited for.
SELECT count(*) FROM (
    SELECT FROM prepaid.service_plans p
    WHERE status = 'Active' AND end_date <= :as_of
      AND (NOT EXISTS (SELECT FROM prepaid.unsettled_plans u
                       WHERE u.service_plan_id = p.service_plan_id)
           OR EXISTS (SELECT FROM prepaid.tasks k
                      WHERE k.service_plan_id = p.service_plan_id AND k.kind = 'quality_check'))
    ORDER BY end_date LIMIT 1
    FOR NO KEY UPDATE) passed_over;
