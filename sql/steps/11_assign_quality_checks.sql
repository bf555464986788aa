-- Step 11: customer success confirms that every digital feature is reachable. The plan is settled:
-- nothing is left to do for it.

-- name: assign
INSERT INTO prepaid.tasks (kind, service_plan_id, assigned_role, opened_on, due_on)
SELECT 'quality_check', p.service_plan_id, prepaid.team_of('quality_check'), :as_of,
       -- In parentheses it is asked once, and not for each row.
       (SELECT prepaid.task_due_on(:as_of))
FROM prepaid.service_plans p
WHERE p.service_plan_id = ANY (:plans)
  AND p.status = 'Active'
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.service_plan_id = p.service_plan_id AND k.kind = 'quality_check')
ORDER BY p.service_plan_id;

-- name: settle
-- Expired too: a payment that was taken back may come again when the term is over.
DELETE FROM prepaid.unsettled_plans u
WHERE u.service_plan_id = ANY (:plans)
  AND EXISTS (SELECT FROM prepaid.service_plans p WHERE p.service_plan_id = u.service_plan_id
              AND p.status IN ('Active', 'Expired', 'Cancelled') OFFSET 0)
  AND EXISTS (SELECT FROM prepaid.invoices i WHERE i.service_plan_id = u.service_plan_id
              AND i.status = 'Paid' OFFSET 0);
