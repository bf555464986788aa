-- Ten terms each for :customers customers over 36 months: monthly, two-monthly, quarterly and 30-day
-- plans, prices that rise, gaps that end a customer's revenue and bring it back.

-- name: without_overlap_check
-- The index that keeps terms apart takes most of the loading time, and no revenue query reads it.
ALTER TABLE prepaid.service_plans DROP CONSTRAINT service_plans_terms_do_not_overlap

-- name: plans
INSERT INTO prepaid.plans (plan_code, name, term_months, term_days)
SELECT 'plan-' || n, 'Plan ' || n, (ARRAY[1, 2, 3, 0])[1 + n % 4], (ARRAY[0, 0, 0, 30])[1 + n % 4]
FROM generate_series(0, 11) n

-- name: customers
INSERT INTO prepaid.customers (customer_ref, name, country, currency)
SELECT 'C' || n, 'Customer ' || n, (ARRAY['US', 'DE', 'JP', 'AT', 'FR'])[1 + n % 5],
       (ARRAY['USD', 'EUR', 'USD', 'JPY'])[1 + n % 4]
FROM generate_series(1, CAST(:customers AS integer)) n

-- name: subscriptions
INSERT INTO prepaid.subscriptions
    (subscription_ref, customer_id, plan_id, started_on, anchor_date, auto_renew)
SELECT 'S' || c.customer_id, c.customer_id, p.plan_id, d.day, d.day, true
FROM prepaid.customers c
JOIN prepaid.plans p ON p.plan_code = 'plan-' || c.customer_id % 12
-- A longer plan starts earlier, so that all ten terms end within the 36 months.
CROSS JOIN LATERAL (SELECT date '2023-11-01'
    + (c.customer_id * 7919 % (1050 - 310 * greatest(p.term_months, 1)))::integer AS day) d

-- name: terms
INSERT INTO prepaid.service_plans (service_plan_id, subscription_id, customer_id, plan_id,
    previous_plan_id, origin, kind, status, start_date, end_date, planned_start, anchor_date,
    term_months, term_days, currency, country, price, net_amount, recurring_amount, activated_on)
OVERRIDING SYSTEM VALUE
SELECT s.subscription_id * 10 + n, s.subscription_id, s.customer_id, s.plan_id,
       CASE WHEN n > 0 THEN s.subscription_id * 10 + n - 1 END, 'imported',
       CASE WHEN n = 0 THEN 'new' WHEN n = 6 AND s.subscription_id % 7 = 0 THEN 'reactivation'
            ELSE 'renewal' END, 'Expired', t.start_date, t.end_date,
       t.start_date, s.anchor_date, p.term_months, p.term_days, c.currency, c.country, t.price,
       t.price, t.price, t.start_date
FROM prepaid.subscriptions s
JOIN prepaid.plans p USING (plan_id)
JOIN prepaid.customers c USING (customer_id)
CROSS JOIN generate_series(0, 9) n
CROSS JOIN LATERAL (SELECT s.started_on + make_interval(
        months => n * p.term_months, days => n * p.term_days
            -- Every seventh customer pauses for two months.
            + CASE WHEN n > 5 AND s.subscription_id % 7 = 0 THEN 61 ELSE 0 END) AS start) b
CROSS JOIN LATERAL (SELECT b.start::date AS start_date,
        (b.start + make_interval(months => p.term_months, days => p.term_days))::date AS end_date,
        10 + s.subscription_id % 50 + CASE WHEN n > 4 AND s.subscription_id % 3 = 0 THEN 5 ELSE 0
        END AS price) t

-- name: analyze
ANALYZE prepaid.service_plans
