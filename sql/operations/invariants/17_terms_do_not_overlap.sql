-- Terms of a subscription do not overlap, and one that was cut by a change of plan ends where the new one starts.
SELECT format('service plan %s starts on %s, before service plan %s ends on %s',
              service_plan_id, start_date, earlier, busy_until) AS finding
FROM (SELECT p.service_plan_id, p.start_date, p.end_date,
             lag(p.service_plan_id) OVER by_start AS earlier,
             max(p.end_date) OVER (PARTITION BY p.subscription_id ORDER BY p.start_date, p.service_plan_id
                                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS busy_until
      FROM prepaid.service_plans p
      WHERE p.activated_on IS NOT NULL AND p.end_date > p.start_date
      WINDOW by_start AS (PARTITION BY p.subscription_id ORDER BY p.start_date, p.service_plan_id)) terms
WHERE start_date < busy_until
UNION ALL
SELECT format('service plan %s was cut on %s, but %s', old.service_plan_id, old.end_date,
              coalesce('its change, service plan ' || new.service_plan_id || ', starts on '
                       || new.start_date, 'no change of plan follows'))
FROM prepaid.service_plans old
LEFT JOIN prepaid.service_plans new ON new.previous_plan_id = old.service_plan_id
    AND new.kind = 'change' AND new.activated_on IS NOT NULL
WHERE old.full_end_date IS NOT NULL AND old.status IN ('Active', 'Expired')
  AND old.end_date IS DISTINCT FROM new.start_date;
