-- What steps 0-5 write, as one would write it by hand for ten thousand ended terms: no claims, no
-- locks, no holds, nothing that could be resumed.

-- name: open
INSERT INTO prepaid.service_plans (
    subscription_id, customer_id, plan_id, previous_plan_id, origin, kind, status,
    start_date, end_date, planned_start, anchor_date, term_months, term_days, opened_on, currency,
    price, addons, customer_name, email, country, tax_exempt, plan_name, tax_class, retrieved_at,
    net_amount, recurring_amount)
SELECT s.subscription_id, s.customer_id, s.plan_id, ended.service_plan_id, 'pipeline', 'renewal',
       'Pending', ended.end_date,
       prepaid.term_end(anchor.anchor_date, ended.end_date, l.term_months, l.term_days),
       ended.end_date, anchor.anchor_date, l.term_months, l.term_days, :as_of, c.currency,
       base.price, coalesce(sold.addons, '[]'), c.name, c.email, c.country, c.tax_exempt, l.name,
       l.tax_class, clock_timestamp(), base.price + coalesce(sold.net, 0),
       base.price + coalesce(sold.net, 0)
FROM prepaid.service_plans ended
JOIN prepaid.subscriptions s USING (subscription_id)
JOIN prepaid.customers c ON c.customer_id = s.customer_id
JOIN prepaid.plans l ON l.plan_id = s.plan_id
LEFT JOIN prepaid.plan_prices lp ON lp.plan_id = s.plan_id AND lp.currency = c.currency
CROSS JOIN LATERAL (SELECT prepaid.anchor_for(ended.anchor_date, ended.end_date) AS anchor_date) anchor
CROSS JOIN LATERAL (SELECT coalesce(s.price, lp.price) AS price) base
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('addon_code', a.addon_code, 'name', a.name,
               'price', ap.price, 'includes_tax', ap.includes_tax, 'quantity', sa.quantity,
               'recurring', a.recurring, 'tax_class', a.tax_class)
               ORDER BY a.addon_code) AS addons,
           sum(ap.price) AS net
    FROM prepaid.subscription_addons sa
    JOIN prepaid.addons a USING (addon_id)
    JOIN prepaid.addon_prices ap ON ap.addon_id = a.addon_id AND ap.currency = c.currency
        AND ap.term_months = l.term_months AND ap.term_days = l.term_days
    WHERE sa.subscription_id = s.subscription_id
) sold ON true
WHERE ended.service_plan_id BETWEEN :first AND :last
ORDER BY ended.service_plan_id;

-- name: mark_processing
UPDATE prepaid.service_plans SET status = 'Processing'
WHERE previous_plan_id BETWEEN :first AND :last AND status = 'Pending';

-- name: charge
WITH lines AS (
    SELECT service_plan_id, currency, country, tax_exempt, 1 AS line_number,
           plan_name AS description, price AS net, tax_class, true AS recurring
    FROM prepaid.service_plans
    WHERE previous_plan_id BETWEEN :first AND :last AND status = 'Processing'
    UNION ALL
    SELECT service_plan_id, currency, country, tax_exempt, 1 + n::integer,
           a ->> 'name', (a ->> 'price')::numeric, a ->> 'tax_class', (a ->> 'recurring')::boolean
    FROM prepaid.service_plans
    CROSS JOIN LATERAL jsonb_array_elements(addons) WITH ORDINALITY e (a, n)
    WHERE previous_plan_id BETWEEN :first AND :last AND status = 'Processing'
), rates AS (
    SELECT DISTINCT ON (country, tax_class) country, tax_class, rate
    FROM prepaid.tax_rates WHERE valid_from <= :as_of
    ORDER BY country, tax_class, valid_from DESC
), rated AS (
    SELECT l.*, c.exponent, r.rate, l.net * coalesce(r.rate, 0) AS exact_tax
    FROM lines l
    JOIN prepaid.currencies c USING (currency)
    LEFT JOIN rates r ON r.country = l.country AND r.tax_class = l.tax_class AND NOT l.tax_exempt
), allocated AS (
    SELECT *, trunc(exact_tax, exponent) AS floor_tax,
           round(sum(exact_tax) OVER tax_group, exponent)
               - sum(trunc(exact_tax, exponent)) OVER tax_group AS left_over,
           row_number() OVER (PARTITION BY service_plan_id, tax_class, rate
               ORDER BY exact_tax - trunc(exact_tax, exponent) DESC, line_number) AS place
    FROM rated
    WINDOW tax_group AS (PARTITION BY service_plan_id, tax_class, rate)
)
INSERT INTO prepaid.charges (service_plan_id, line_number, description, currency, net,
                             tax_class, tax_rate, tax, calculated_for, quantity, unit_price,
                             list_amount, discount, includes_tax, recurring_net)
SELECT service_plan_id, line_number, description, currency, round(net, exponent), tax_class, rate,
       round(floor_tax + CASE WHEN place <= left_over * 10::numeric ^ exponent
                              THEN 10::numeric ^ -exponent ELSE 0 END, exponent),
       :as_of, 1, round(net, exponent), round(net, exponent), 0, false,
       CASE WHEN recurring THEN round(net, exponent) ELSE 0 END
FROM allocated;

-- name: start_series
INSERT INTO prepaid.invoice_series (series, year)
VALUES ('INV', extract(year FROM CAST(:as_of AS date))) ON CONFLICT DO NOTHING;

-- name: invoice
WITH totals AS (
    SELECT p.service_plan_id, p.customer_id, p.currency, p.tax_exempt,
           sum(ch.net) AS net, sum(ch.tax) AS tax,
           row_number() OVER (ORDER BY p.service_plan_id) AS place
    FROM prepaid.service_plans p JOIN prepaid.charges ch USING (service_plan_id)
    WHERE p.previous_plan_id BETWEEN :first AND :last AND p.status = 'Processing'
    GROUP BY p.service_plan_id
)
INSERT INTO prepaid.invoices (invoice_number, service_plan_id, customer_id, currency,
                              net, tax, total, status, tax_note, issued_on)
SELECT prepaid.invoice_number(s.series, s.year, s.last_number + t.place), t.service_plan_id,
       t.customer_id, t.currency, t.net, t.tax, t.net + t.tax, 'Open',
       CASE WHEN t.tax_exempt THEN 'Tax-exempt customer: no tax charged' END, :as_of
FROM totals t CROSS JOIN prepaid.invoice_series s
ORDER BY t.place;

-- name: advance_series
UPDATE prepaid.invoice_series SET last_number = (SELECT count(*) FROM prepaid.invoices);

-- name: invoice_lines
INSERT INTO prepaid.invoice_lines (invoice_id, line_number, description, net, tax_class, tax_rate, tax,
                                   quantity, unit_price, list_amount, discount, includes_tax)
SELECT i.invoice_id, ch.line_number, ch.description, ch.net, ch.tax_class, ch.tax_rate, ch.tax,
       ch.quantity, ch.unit_price, ch.list_amount, ch.discount, ch.includes_tax
FROM prepaid.service_plans p
JOIN prepaid.invoices i USING (service_plan_id)
JOIN prepaid.charges ch USING (service_plan_id)
WHERE p.previous_plan_id BETWEEN :first AND :last AND p.status = 'Processing';

-- name: ask_finance
INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on, due_on)
SELECT 'payment_verification', p.service_plan_id, i.invoice_id, 'finance', :as_of, prepaid.task_due_on(:as_of)
FROM prepaid.service_plans p
JOIN prepaid.invoices i USING (service_plan_id)
WHERE p.previous_plan_id BETWEEN :first AND :last AND p.status = 'Processing';

-- name: hand_over
UPDATE prepaid.service_plans SET status = 'Pending', invoiced_at = clock_timestamp()
WHERE previous_plan_id BETWEEN :first AND :last AND status = 'Processing';
