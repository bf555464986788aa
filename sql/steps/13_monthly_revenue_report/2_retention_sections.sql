-- Step 13: what the report says of renewals, retention and deferred revenue, from the published figures.

-- name: known_months
-- Not those that an older release computed, which knew none of this.
SELECT month FROM revenue.months
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
  AND fingerprint IS NOT NULL;

-- name: renewals
SELECT r.month, r.currency, r.plan_code, p.name, r.country, r.due, r.on_time, r.in_grace,
       r.reactivated, r.lapsed, r.cancelled, r.waiting
FROM revenue.renewal_outcomes r JOIN prepaid.plans p USING (plan_code)
WHERE r.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: retention
SELECT month, currency, window_months, customers_before, customers_kept, mrr_before, mrr_kept, mrr_now
FROM revenue.retention
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: cohorts
SELECT month, currency, cohort, customers, customers_kept, mrr, mrr_kept, mrr_now
FROM revenue.cohorts
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
ORDER BY cohort;

-- name: deferred
SELECT month, currency, opening, billed, recognised, refunded, closing
FROM revenue.deferred_revenue
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: reconciliation
SELECT month, currency, line, amount FROM revenue.reconciliation
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);
