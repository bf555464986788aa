-- No renewal was missed silently: every term that ended longer ago than grace was renewed, changed, cancelled or held.
SELECT format('subscription %s: its term %s on %s and nothing followed', s.subscription_ref,
              CASE last.status WHEN 'Cancelled' THEN 'was cancelled at once' ELSE 'ended' END,
              last.end_date) AS finding
FROM prepaid.subscriptions s
CROSS JOIN LATERAL (
    SELECT p.* FROM prepaid.service_plans p
    WHERE p.subscription_id = s.subscription_id AND p.activated_on IS NOT NULL
    ORDER BY p.end_date DESC, p.start_date DESC LIMIT 1
) last
-- A cancellation that was taken back counts as none: its customer is to be renewed like others.
WHERE s.auto_renew AND (s.cancelled_on IS NULL OR s.cancelled_on > last.end_date)
  AND last.end_date < CAST(:as_of AS date) - prepaid.days_within_term(:grace_days, last.term_days)
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = last.service_plan_id AND h.released_at IS NULL)
  -- What waits has an invoice, a hold, or its turn. A renewal that was cancelled for not being paid was
  -- dealt with; one that was cancelled with its subscription, or for a change of plan, was not.
  AND NOT EXISTS (SELECT FROM prepaid.service_plans later
                  WHERE later.subscription_id = s.subscription_id
                    AND (later.status IN ('Pending', 'Processing')
                         OR later.planned_start >= last.end_date AND NOT later.may_reopen
                            AND later.service_plan_id <> last.service_plan_id))
ORDER BY last.end_date, s.subscription_ref;
