-- No renewal was missed in silence: a term that ended longer ago than grace was renewed, cancelled or held.
SELECT format('subscription %s: its term ended on %s and nothing followed', s.subscription_ref, last.end_date) AS finding
FROM prepaid.subscriptions s
CROSS JOIN LATERAL (
    SELECT p.* FROM prepaid.service_plans p
    WHERE p.subscription_id = s.subscription_id AND p.status <> 'Cancelled'
    ORDER BY p.end_date DESC LIMIT 1
) last
WHERE s.auto_renew AND (s.cancelled_on IS NULL OR s.cancelled_on > last.end_date)
  AND last.status IN ('Active', 'Expired')
  AND last.end_date < CAST(:as_of AS date) - prepaid.days_within_term(:grace_days, last.term_days)
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = last.service_plan_id AND h.released_at IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.service_plans later
                  WHERE later.subscription_id = s.subscription_id
                    AND later.planned_start >= last.end_date)
ORDER BY last.end_date, s.subscription_ref;
