-- Step 0: the row itself. One live successor per previous plan and one live first plan per
-- subscription (unique indexes), so a second run, or a second worker, opens nothing twice.

-- name: open_renewals
-- Terms that end within the window. Older ones are silent misses: 'prepaid check' lists them. Any
-- later term of the subscription, cancelled ones too, means that this renewal was dealt with; except
-- one that was cancelled with its subscription, or for a change of plan, and that was taken back.
INSERT INTO prepaid.service_plans (
    subscription_id, customer_id, plan_id, previous_plan_id, origin, kind, status,
    start_date, end_date, planned_start, anchor_date, term_months, term_days, opened_on, currency)
SELECT s.subscription_id, s.customer_id, s.plan_id, ended.service_plan_id, 'pipeline', 'renewal', 'Pending',
       ended.end_date,
       prepaid.term_end(anchor.anchor_date, ended.end_date, l.term_months, l.term_days),
       ended.end_date, anchor.anchor_date, l.term_months, l.term_days, :as_of, c.currency
FROM prepaid.service_plans ended
JOIN prepaid.subscriptions s USING (subscription_id)
JOIN prepaid.customers c ON c.customer_id = s.customer_id
JOIN prepaid.plans l ON l.plan_id = s.plan_id
CROSS JOIN LATERAL (SELECT prepaid.anchor_for(ended.anchor_date, ended.end_date) AS anchor_date) anchor
WHERE ended.status IN ('Active', 'Expired')
  AND ended.end_date BETWEEN CAST(:as_of AS date) - CAST(:grace_days AS integer)
                         AND CAST(:as_of AS date) + CAST(:lead_days AS integer)
  AND ended.end_date >= CAST(:as_of AS date) - prepaid.days_within_term(:grace_days, ended.term_days)
  AND ended.end_date <= CAST(:as_of AS date) + prepaid.days_within_term(:lead_days, ended.term_days)
  AND s.auto_renew AND (s.cancelled_on IS NULL OR s.cancelled_on > ended.end_date)
  AND ended.subscription_id BETWEEN :first AND :last
  AND NOT EXISTS (SELECT FROM prepaid.service_plans later
                  WHERE later.subscription_id = ended.subscription_id
                    AND (later.planned_start >= ended.end_date AND NOT later.may_reopen
                         OR later.previous_plan_id = ended.service_plan_id
                            AND (later.status <> 'Cancelled' OR later.activated_on IS NOT NULL)) OFFSET 0)
ORDER BY ended.end_date, ended.service_plan_id
ON CONFLICT DO NOTHING;

-- name: open_first_plans
-- Purchases: subscriptions without any term, and none to be imported. (Orders of returning customers
-- are rows already.)
INSERT INTO prepaid.service_plans (
    subscription_id, customer_id, plan_id, origin, kind, status,
    start_date, end_date, planned_start, anchor_date, term_months, term_days, opened_on, currency)
SELECT s.subscription_id, s.customer_id, s.plan_id, 'pipeline', 'new', 'Pending',
       starts.on_date, prepaid.term_end(starts.on_date, starts.on_date, l.term_months, l.term_days),
       s.started_on, starts.on_date, l.term_months, l.term_days, :as_of, c.currency
FROM prepaid.subscriptions s
JOIN prepaid.customers c USING (customer_id)
JOIN prepaid.plans l USING (plan_id)
CROSS JOIN LATERAL (SELECT greatest(s.started_on, :as_of) AS on_date) starts
WHERE s.started_on <= CAST(:as_of AS date) + prepaid.days_within_term(:lead_days, l.term_days)
  AND (s.cancelled_on IS NULL OR s.cancelled_on > starts.on_date)
  AND s.subscription_id BETWEEN :first AND :last
  AND NOT EXISTS (SELECT FROM prepaid.subscriptions_awaiting_history w
                  WHERE w.subscription_id = s.subscription_id OFFSET 0)
  AND NOT EXISTS (SELECT FROM prepaid.service_plans p
                  WHERE p.subscription_id = s.subscription_id AND NOT p.may_reopen OFFSET 0)
ORDER BY s.started_on, s.subscription_id
ON CONFLICT DO NOTHING;
