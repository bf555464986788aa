-- Customers with one ended term each, as an import would leave them: three currencies with 0 and 2
-- decimals, terms in months, years and days, 0-3 add-ons, one customer in fifty exempt from tax.

-- name: plans
INSERT INTO prepaid.plans (plan_code, name, term_months, term_days) VALUES
    ('month', 'Monthly', 1, 0), ('year', 'Yearly', 12, 0), ('days', '30 days', 0, 30);

-- name: plan_prices
INSERT INTO prepaid.plan_prices (plan_id, currency, price)
SELECT plan_id, currency, price FROM prepaid.plans
CROSS JOIN (VALUES ('EUR', 19.99), ('USD', 21.50), ('JPY', 2980)) list (currency, price);

-- name: addons
INSERT INTO prepaid.addons (addon_code, name, recurring, tax_class) VALUES
    ('backup', 'Backup', true, 'standard'), ('support', 'Priority support', true, 'standard'),
    ('books', 'Digital library', true, 'reduced');

-- name: addon_prices
INSERT INTO prepaid.addon_prices (addon_id, term_months, term_days, currency, price)
SELECT addon_id, term_months, term_days, currency, price
FROM prepaid.addons CROSS JOIN prepaid.plans
CROSS JOIN (VALUES ('EUR', 3.49), ('USD', 3.95), ('JPY', 333)) list (currency, price);

-- name: tax_rates
INSERT INTO prepaid.tax_rates (country, tax_class, rate, valid_from) VALUES
    ('DE', 'standard', 0.19, '2020-01-01'), ('DE', 'reduced', 0.07, '2020-01-01'),
    ('US', 'standard', 0.0725, '2020-01-01'), ('US', 'reduced', 0, '2020-01-01'),
    ('JP', 'standard', 0.08, '2014-04-01'), ('JP', 'standard', 0.10, '2019-10-01'),
    ('JP', 'reduced', 0.08, '2019-10-01');

-- name: customers
INSERT INTO prepaid.customers (customer_ref, name, email, country, currency, tax_exempt)
SELECT 'C' || n, 'Customer ' || n, 'c' || n || '@example.com',
       (ARRAY['DE', 'US', 'JP'])[1 + n % 3], (ARRAY['EUR', 'USD', 'JPY'])[1 + n % 3], n % 50 = 0
FROM generate_series(1, CAST(:plans AS integer)) n;

-- name: subscriptions
-- One in ten has a price of its own. Ends are spread over the eight days before the lead is over.
INSERT INTO prepaid.subscriptions
    (subscription_ref, customer_id, plan_id, started_on, anchor_date, auto_renew, price)
SELECT 'S' || n, c.customer_id, l.plan_id, starts.on_date, starts.on_date, true,
       CASE WHEN n % 10 = 0 THEN 500 + n % 7 END
FROM generate_series(1, CAST(:plans AS integer)) n
JOIN prepaid.customers c ON c.customer_ref = 'C' || n
JOIN prepaid.plans l ON l.plan_code = (ARRAY['month', 'month', 'month', 'year', 'days'])[1 + n % 5]
CROSS JOIN LATERAL (
    SELECT (CAST(:as_of AS date) + n % 8
            - make_interval(months => l.term_months, days => l.term_days))::date AS on_date) starts;

-- name: subscription_addons
INSERT INTO prepaid.subscription_addons (subscription_id, addon_id)
SELECT s.subscription_id, a.addon_id
FROM prepaid.subscriptions s
JOIN prepaid.addons a ON a.addon_id <= s.subscription_id % 4;

-- name: ended_terms
INSERT INTO prepaid.service_plans (
    subscription_id, customer_id, plan_id, origin, kind, status, start_date, end_date,
    planned_start, anchor_date, term_months, term_days, currency, price,
    net_amount, recurring_amount, activated_on)
SELECT s.subscription_id, s.customer_id, s.plan_id, 'imported', 'new', 'Active', s.started_on,
       prepaid.term_end(s.anchor_date, s.started_on, l.term_months, l.term_days),
       s.started_on, s.anchor_date, l.term_months, l.term_days, c.currency, lp.price,
       lp.price, lp.price, s.started_on
FROM prepaid.subscriptions s
JOIN prepaid.customers c USING (customer_id)
JOIN prepaid.plans l USING (plan_id)
JOIN prepaid.plan_prices lp USING (plan_id, currency)
ORDER BY s.subscription_id;
