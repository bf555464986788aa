-- Every renewal starts where the previous term ended.
SELECT format('service plan %s starts on %s, the term before it ended on %s',
              p.service_plan_id, p.start_date, previous.end_date) AS finding
FROM prepaid.service_plans p
JOIN prepaid.service_plans previous ON previous.service_plan_id = p.previous_plan_id
WHERE p.origin = 'pipeline' AND p.kind = 'renewal' AND p.status <> 'Cancelled'
  AND p.start_date <> previous.end_date
  -- An order of a returning customer has a start of its own.
  AND p.start_date <> p.planned_start
ORDER BY p.service_plan_id;
