-- New purchases, orders of returning customers, and plans that a person released from a hold.
-- (Renewals are opened by the daily schedule.)
SELECT CAST(NULL AS bigint) AS service_plan_id, s.subscription_id
FROM prepaid.subscriptions s JOIN prepaid.plans l USING (plan_id)
WHERE s.started_on <= CAST(:as_of AS date) + prepaid.days_within_term(:lead_days, l.term_days)
  AND (s.cancelled_on IS NULL OR s.cancelled_on > greatest(s.started_on, CAST(:as_of AS date)))
  AND NOT EXISTS (SELECT FROM prepaid.subscriptions_awaiting_history w
                  WHERE w.subscription_id = s.subscription_id)
  -- Tried today and failed: the next try is tomorrow's, not every half minute's.
  AND NOT EXISTS (SELECT FROM prepaid.audit_log a WHERE a.event = 'opening_failed'
                  AND a.entity_id = s.subscription_id AND a.as_of = CAST(:as_of AS date))
  AND NOT EXISTS (SELECT FROM prepaid.service_plans p
                  WHERE p.subscription_id = s.subscription_id AND NOT p.may_reopen)
UNION ALL
SELECT r.service_plan_id, NULL FROM prepaid.ready_to_invoice r
WHERE r.planned_start <= CAST(:as_of AS date) + prepaid.days_within_term(:lead_days, r.term_days)
LIMIT :limit;
