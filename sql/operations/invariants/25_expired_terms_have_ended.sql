-- Every Expired plan's term has ended: none expired for a business date that has not come.
-- Where days were only ever given by --as-of, the day for which it expired is as good as today.
SELECT concat(
    format('service plan %s is Expired, but its term runs until %s', p.service_plan_id, p.end_date),
    '; it expired for ' || done.as_of || ': if that date was wrong, prepaid undo ' || done.as_of)
    AS finding
FROM prepaid.service_plans p
CROSS JOIN prepaid.installation i
LEFT JOIN LATERAL (
    SELECT a.as_of FROM prepaid.audit_log a
    WHERE a.service_plan_id = p.service_plan_id AND a.event = 'service_plan_expired'
    ORDER BY a.audit_id DESC LIMIT 1) done ON true
WHERE p.status = 'Expired'
  AND p.end_date > greatest(CAST(:as_of AS date), (now() AT TIME ZONE i.timezone)::date)
  AND (i.first_real_day IS NOT NULL OR done.as_of IS NULL OR done.as_of < p.end_date)
ORDER BY p.service_plan_id;
