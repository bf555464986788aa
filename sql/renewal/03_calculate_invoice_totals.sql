-- Step 3: base plan + add-on fees + taxes, as charges that step 4 only copies.

-- name: forget_other_dates
-- Charges are for one invoice date. If the run died and goes on the next day, they are made anew:
-- the tax rate is the one that is valid on the invoice's date.
DELETE FROM prepaid.charges ch
WHERE ch.service_plan_id = ANY (:plans) AND ch.calculated_for <> :as_of
  AND NOT EXISTS (SELECT FROM prepaid.invoices i WHERE i.service_plan_id = ch.service_plan_id
                  AND i.status <> 'Void' OFFSET 0);

-- name: hold_without_tax_rate
-- No rate known is not 0 %: nobody may guess it.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'no_tax_rate', format(
    'No tax rate is known for %s in %s on %s. '
    'Add it (import tax_rates.csv), then release the hold.',
    string_agg(DISTINCT line.tax_class, ', '), p.country, CAST(:as_of AS date))
FROM prepaid.service_plans p
CROSS JOIN LATERAL (
    SELECT p.tax_class
    UNION SELECT a ->> 'tax_class' FROM jsonb_array_elements(p.addons) a
) line
WHERE p.service_plan_id = ANY (:plans)
  AND p.status = 'Processing' AND NOT p.tax_exempt
  AND NOT EXISTS (SELECT FROM prepaid.tax_rates r WHERE r.country = p.country
                  AND r.tax_class = line.tax_class AND r.valid_from <= :as_of)
GROUP BY p.service_plan_id, p.country
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: calculate
-- EN 16931 (BR-CO-17): the tax of each (tax class, rate) group of the invoice is rounded once, half
-- up. It is allocated to the lines by largest remainder, ties by line number.
WITH plans AS (
    SELECT p.service_plan_id, p.plan_name, p.currency, p.price, p.addons, p.tax_class, p.country,
           p.tax_exempt, c.exponent
    FROM prepaid.service_plans p
    JOIN prepaid.currencies c USING (currency)
    WHERE p.service_plan_id = ANY (:plans)
      AND p.status = 'Processing' AND p.invoiced_at IS NULL
      AND NOT EXISTS (SELECT FROM prepaid.charges ch
                      WHERE ch.service_plan_id = p.service_plan_id OFFSET 0)
      AND NOT EXISTS (SELECT FROM prepaid.holds h
                      WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL OFFSET 0)
), lines AS (
    SELECT service_plan_id, currency, exponent, country, tax_exempt, 1 AS line_number,
           plan_name AS description, price AS net, tax_class, true AS recurring
    FROM plans
    UNION ALL
    SELECT service_plan_id, currency, exponent, country, tax_exempt, 1 + n::integer,
           a ->> 'name', (a ->> 'price')::numeric, a ->> 'tax_class', (a ->> 'recurring')::boolean
    FROM plans CROSS JOIN LATERAL jsonb_array_elements(addons) WITH ORDINALITY e (a, n)
), rates AS (
    SELECT DISTINCT ON (country, tax_class) country, tax_class, rate
    FROM prepaid.tax_rates WHERE valid_from <= :as_of
    ORDER BY country, tax_class, valid_from DESC
), rated AS (
    SELECT l.*, r.rate, l.net * coalesce(r.rate, 0) AS exact_tax
    FROM lines l
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
