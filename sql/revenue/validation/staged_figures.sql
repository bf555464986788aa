-- What must hold for a run's staged figures before they are published: each query returns the rows
-- that break its rule. The validation puts the run's view of the staging table in place of {batch}.

-- name: one_mrr_row_per_month_currency_and_plan
SELECT month, currency, plan_code, count(*) AS times
FROM {batch} GROUP BY month, currency, plan_code HAVING count(*) > 1

-- name: mrr_lies_in_the_months_asked_for
SELECT month, currency, plan_code FROM {batch}
WHERE month IS NULL OR month NOT IN (SELECT month FROM revenue.staged_months)

-- name: mrr_is_the_terms_counted_one_by_one
SELECT coalesce(f.month, c.month) AS month, coalesce(f.currency, c.currency) AS currency,
       f.mrr, f.active_plans, c.mrr AS counted_mrr, c.active_plans AS counted_plans
FROM (
    SELECT month, currency, sum(mrr) AS mrr, sum(active_plans) AS active_plans
    FROM {batch} batch WHERE month = (SELECT max(month) FROM revenue.staged_months)
    GROUP BY month, currency
) f
FULL JOIN revenue.staged_control c ON c.month = f.month AND c.currency = f.currency
WHERE coalesce(f.mrr, 0) <> coalesce(c.mrr, 0)
   OR coalesce(f.active_plans, 0) <> coalesce(c.active_plans, 0)

-- name: one_mrr_row_per_month_currency_and_country
SELECT month, currency, country, count(*) AS times
FROM {batch} GROUP BY month, currency, country HAVING count(*) > 1

-- name: a_country_has_no_more_customers_than_plans
SELECT month, currency, country, customers, active_plans FROM {batch}
WHERE (customers BETWEEN 0 AND active_plans) IS NOT TRUE

-- name: countries_add_up_to_the_mrr
SELECT coalesce(c.month, f.month) AS month, coalesce(c.currency, f.currency) AS currency,
       c.mrr AS of_countries, f.mrr, c.active_plans AS plans_of_countries, f.active_plans
FROM (
    SELECT month, currency, sum(mrr) AS mrr, sum(active_plans) AS active_plans
    FROM {batch} batch GROUP BY month, currency
) c
FULL JOIN (
    SELECT month, currency, sum(mrr) AS mrr, sum(active_plans) AS active_plans
    FROM revenue.staged_mrr GROUP BY month, currency
) f ON f.month = c.month AND f.currency = c.currency
WHERE coalesce(c.mrr, 0) <> coalesce(f.mrr, 0)
   OR coalesce(c.active_plans, 0) <> coalesce(f.active_plans, 0)

-- name: every_customer_is_in_a_country
-- One with terms of two countries is in both.
SELECT b.month, b.currency, b.closing_customers, c.customers AS of_countries
FROM revenue.staged_mrr_bridge b
LEFT JOIN (
    SELECT month, currency, sum(customers) AS customers FROM {batch} batch GROUP BY month, currency
) c ON c.month = b.month AND c.currency = b.currency
WHERE b.closing_customers > coalesce(c.customers, 0)

-- name: one_row_per_month_currency_and_movement
SELECT month, currency, movement, count(*) AS times
FROM {batch} GROUP BY month, currency, movement HAVING count(*) > 1

-- name: gains_are_positive_and_losses_negative
SELECT month, currency, movement, amount FROM {batch}
WHERE amount IS NULL
   OR CASE WHEN movement IN ('contraction', 'churn') THEN amount >= 0 ELSE amount <= 0 END

-- name: start_and_movements_make_the_end
SELECT coalesce(b.month, m.month) AS month, coalesce(b.currency, m.currency) AS currency,
       b.opening_mrr, m.amount AS movements, b.closing_mrr
FROM revenue.staged_mrr_bridge b
FULL JOIN (
    SELECT month, currency, sum(amount) AS amount FROM {batch} batch GROUP BY month, currency
) m ON m.month = b.month AND m.currency = b.currency
WHERE coalesce(b.opening_mrr, 0) + coalesce(m.amount, 0) <> coalesce(b.closing_mrr, 0)

-- name: a_month_starts_where_the_last_one_ended
SELECT month, currency, opening_mrr, ended, opening_customers, ended_customers
FROM (
    SELECT s.month, k.currency, coalesce(b.opening_mrr, 0) AS opening_mrr,
           coalesce(b.opening_customers, 0) AS opening_customers,
           lag(coalesce(b.closing_mrr, 0)) OVER w AS ended,
           lag(coalesce(b.closing_customers, 0)) OVER w AS ended_customers
    FROM revenue.staged_months s
    CROSS JOIN (SELECT DISTINCT currency FROM {batch} batch) k
    LEFT JOIN (SELECT * FROM {batch} batch) b ON b.month = s.month AND b.currency = k.currency
    WINDOW w AS (PARTITION BY k.currency ORDER BY s.month)
) b
WHERE opening_mrr <> ended OR opening_customers <> ended_customers

-- name: movements_lead_to_the_mrr_of_the_month
SELECT coalesce(b.month, f.month) AS month, coalesce(b.currency, f.currency) AS currency,
       b.closing_mrr, f.mrr
FROM (SELECT * FROM {batch} batch) b
FULL JOIN (
    SELECT month, currency, sum(mrr) AS mrr FROM revenue.staged_mrr GROUP BY month, currency
) f ON f.month = b.month AND f.currency = b.currency
WHERE coalesce(b.closing_mrr, 0) <> coalesce(f.mrr, 0)

-- name: one_row_per_month_currency_plan_and_kind
SELECT month, currency, plan_code, kind, count(*) AS times
FROM {batch} GROUP BY month, currency, plan_code, kind HAVING count(*) > 1

-- name: kinds_add_up_to_all_activations
SELECT coalesce(c.month, (SELECT max(month) FROM revenue.staged_months)) AS month,
       coalesce(a.currency, c.currency) AS currency, a.plans, c.activations AS counted
FROM (SELECT currency, sum(plans) AS plans FROM {batch} batch GROUP BY currency) a
FULL JOIN revenue.staged_control c USING (currency)
WHERE coalesce(a.plans, 0) <> coalesce(c.activations, 0)

-- name: one_row_per_month_currency_country_and_kind
SELECT month, currency, country, kind, count(*) AS times
FROM {batch} GROUP BY month, currency, country, kind HAVING count(*) > 1

-- name: countries_add_up_to_the_activations
SELECT coalesce(c.month, a.month) AS month, coalesce(c.currency, a.currency) AS currency,
       coalesce(c.kind, a.kind) AS kind, c.plans AS plans_of_countries, a.plans,
       c.net_amount AS net_of_countries, a.net_amount
FROM (
    SELECT month, currency, kind, sum(plans) AS plans, sum(net_amount) AS net_amount
    FROM {batch} batch GROUP BY month, currency, kind
) c
FULL JOIN (
    SELECT month, currency, kind, sum(plans) AS plans, sum(net_amount) AS net_amount
    FROM revenue.staged_plan_activations GROUP BY month, currency, kind
) a ON a.month = c.month AND a.currency = c.currency AND a.kind = c.kind
WHERE coalesce(c.plans, 0) <> coalesce(a.plans, 0)
   OR coalesce(c.net_amount, 0) <> coalesce(a.net_amount, 0)

-- name: one_row_per_month_currency_and_kind_of_reversal
SELECT month, currency, kind, count(*) AS times
FROM {batch} GROUP BY month, currency, kind HAVING count(*) > 1

-- name: reversals_lie_in_the_months_asked_for
SELECT month, currency, kind FROM {batch}
WHERE month IS NULL OR month NOT IN (SELECT month FROM revenue.staged_months)

-- name: only_a_reversed_chargeback_brings_money_back
SELECT month, currency, kind, amount FROM {batch}
WHERE amount IS NULL OR CASE kind WHEN 'ChargebackReversed' THEN amount > 0 ELSE amount < 0 END

-- name: one_row_of_credit_notes_per_month_and_currency
SELECT month, currency, count(*) AS times
FROM {batch} GROUP BY month, currency HAVING count(*) > 1

-- name: credit_notes_are_net_and_tax
SELECT month, currency, net, tax, total FROM {batch} WHERE (net + tax = total) IS NOT TRUE
