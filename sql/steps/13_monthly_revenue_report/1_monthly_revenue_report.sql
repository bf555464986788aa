-- Step 13: the month's report, made from the published figures of step 12 and from nothing else, and
-- kept as a version with its own figures: what was reported stays as it was reported.

-- name: months
SELECT month, as_of, fingerprint, computed_at FROM revenue.months
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date) ORDER BY month;

-- name: currencies
-- Every currency in which something was active, moved, began, ended, was owed or paid in the month.
SELECT k.month, k.currency, c.exponent,
       coalesce(b.opening_mrr, 0) AS opening_mrr, coalesce(b.closing_mrr, 0) AS closing_mrr,
       coalesce(b.opening_customers, 0) AS opening_customers,
       coalesce(b.closing_customers, 0) AS closing_customers
FROM (
    SELECT month, currency FROM revenue.mrr_bridge
    UNION SELECT month, currency FROM revenue.mrr
    UNION SELECT month, currency FROM revenue.plan_activations
    UNION SELECT month, currency FROM revenue.payment_reversals
    UNION SELECT month, currency FROM revenue.credit_notes_issued
    UNION SELECT month, currency FROM revenue.renewal_outcomes
    UNION SELECT month, currency FROM revenue.deferred_revenue
    UNION SELECT month, currency FROM revenue.reconciliation
) k
JOIN prepaid.currencies c USING (currency)
LEFT JOIN revenue.mrr_bridge b USING (month, currency)
WHERE k.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
ORDER BY k.month, coalesce(b.closing_customers, 0) DESC, k.currency;

-- name: movements
SELECT month, currency, movement, customers, amount FROM revenue.mrr_movements
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: plans
SELECT m.month, m.currency, m.plan_code, p.name, m.active_plans, m.mrr
FROM revenue.mrr m JOIN prepaid.plans p USING (plan_code)
WHERE m.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
ORDER BY m.mrr DESC, m.plan_code;

-- name: activations
SELECT a.month, a.currency, a.plan_code, p.name, a.kind, a.plans, a.net_amount
FROM revenue.plan_activations a JOIN prepaid.plans p USING (plan_code)
WHERE a.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
ORDER BY a.plan_code, a.kind;

-- name: countries
SELECT month, currency, country, active_plans, customers, mrr FROM revenue.mrr_by_country
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: activations_by_country
SELECT month, currency, country, kind, plans, net_amount FROM revenue.activations_by_country
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: reversals
SELECT month, currency, kind, records, amount FROM revenue.payment_reversals
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: credit_notes
SELECT month, currency, credit_notes, net, tax, total FROM revenue.credit_notes_issued
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: stage_months
INSERT INTO revenue.months_staging (run_id, month, as_of)
SELECT :run_id, month, as_of FROM revenue.months
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: stage
INSERT INTO revenue.monthly_report_staging
    (run_id, month, currency, new_plans, renewals, reactivations, opening_mrr, mrr, active_plans,
     customers, figures, changes)
SELECT :run_id, r.month, r.currency, r.new_plans, r.renewals, r.reactivations, r.opening_mrr, r.mrr,
       r.active_plans, r.customers, r.figures, r.changes
FROM jsonb_to_recordset(CAST(:reports AS jsonb)) r (
    month date, currency text, new_plans bigint, renewals bigint, reactivations bigint,
    opening_mrr numeric, mrr numeric, active_plans bigint, customers bigint, figures jsonb,
    changes bigint);

-- name: versions
-- What stands: the preliminary version (0) or all closed ones, oldest first.
SELECT v.month, v.version, v.cut_off, v.note, v.published_at, v.fingerprint, v.computed_at, v.document
FROM revenue.report_versions v
WHERE v.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
ORDER BY v.month, v.version;

-- name: reports
SELECT r.month, r.version, r.currency, r.figures
FROM revenue.monthly_report r
WHERE r.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
ORDER BY r.month, r.version, r.customers DESC, r.currency;

-- name: all_months
-- The latest version of every month, newest month first: what the index lists.
SELECT DISTINCT ON (v.month) v.month, v.version, v.cut_off
FROM revenue.report_versions v ORDER BY v.month DESC, v.version DESC;

-- name: closed_months
-- The first and the last closed month whose figures are of :as_of or earlier; null without any.
SELECT min(m.month) AS first, max(m.month) AS last
FROM revenue.months m
WHERE m.as_of <= CAST(:as_of AS date)
  AND EXISTS (SELECT FROM revenue.report_versions v WHERE v.month = m.month AND v.version > 0);

-- name: due_months
-- Months from the first term on that have ended for good and have no closed version yet.
SELECT m::date AS month
FROM (SELECT min(start_date) AS first_start FROM prepaid.service_plans
      WHERE activated_on IS NOT NULL) s
-- Without terms first_start is null, and there is no month.
CROSS JOIN generate_series(
    date_trunc('month', first_start::timestamp),
    CAST(:last_month AS timestamp), interval '1 month') m
WHERE m >= CAST(:first_month AS timestamp)
  AND NOT EXISTS (
    SELECT FROM revenue.report_versions v WHERE v.month = m::date AND v.version > 0)
ORDER BY 1;
