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
