-- Step 3: base plan + add-on fees + taxes, as charges that step 4 only copies.

-- name: forget_other_dates
-- Charges are for one invoice date. If the run died and continues the next day, they are made again:
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
-- Discounts come first: percentages add up (100 at most) and are rounded half up on each line; then
-- amounts take what is left of the plan's line, then of the recurring add-ons in their order. What
-- is permanent counts for recurring revenue too, and is worked out separately.
--
-- EN 16931 (BR-CO-17): the tax of each group of lines (tax class, rate, price with or without tax) is
-- rounded once, half up. It is allocated to the lines by largest remainder, ties by line number. Tax
-- within a price is amount * rate / (1 + rate). All of it in minor units and whole quotients: a
-- quotient that is rounded on the way could end on the wrong side of half a cent.
--
-- No joins between what is made here: the planner takes all of it for a row or two.
WITH plans AS MATERIALIZED (
    SELECT p.service_plan_id, p.plan_name, p.currency, p.price, p.price_includes_tax, p.quantity,
           p.addons, p.discounts, p.tax_class, p.country, p.tax_exempt, c.exponent,
           round(10::numeric ^ c.exponent) AS units,
           round(10::numeric ^ -c.exponent, c.exponent) AS minor_unit
    FROM prepaid.service_plans p
    JOIN prepaid.currencies c USING (currency)
    WHERE p.service_plan_id = ANY (:plans)
      AND p.status = 'Processing' AND p.invoiced_at IS NULL
      AND NOT EXISTS (SELECT FROM prepaid.charges ch
                      WHERE ch.service_plan_id = p.service_plan_id OFFSET 0)
      AND NOT EXISTS (SELECT FROM prepaid.holds h
                      WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL OFFSET 0)
), lines AS (
    SELECT service_plan_id, currency, exponent, units, minor_unit, country, tax_exempt, discounts,
           1 AS line_number, plan_name AS description, quantity, price AS unit_price,
           round(price * quantity, exponent) AS list_amount, price_includes_tax AS includes_tax,
           tax_class, true AS recurring
    FROM plans
    UNION ALL
    SELECT service_plan_id, currency, exponent, units, minor_unit, country, tax_exempt,
           CASE WHEN a.recurring THEN discounts END,
           1 + n::integer, a.name, coalesce(a.quantity, 1), a.price,
           round(a.price * coalesce(a.quantity, 1), exponent), coalesce(a.includes_tax, false),
           a.tax_class, a.recurring
    FROM plans
    CROSS JOIN LATERAL ROWS FROM (jsonb_to_recordset(addons) AS (
        name text, quantity integer, price numeric, includes_tax boolean, tax_class text,
        recurring boolean)) WITH ORDINALITY a (
        name, quantity, price, includes_tax, tax_class, recurring, n)
), after_percentages AS (
    SELECT l.*, round(g.amount, exponent) AS amount, round(g.lasting_amount, exponent) AS lasting_amount,
           list_amount - round(list_amount * least(g.percent, 100) * 0.01, exponent) AS rest,
           list_amount - round(list_amount * least(g.lasting_percent, 100) * 0.01, exponent)
               AS lasting_rest
    FROM lines l
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(d.percent), 0) AS percent, coalesce(sum(d.amount), 0) AS amount,
               coalesce(sum(d.percent) FILTER (WHERE d.for_ever), 0) AS lasting_percent,
               coalesce(sum(d.amount) FILTER (WHERE d.for_ever), 0) AS lasting_amount
        FROM jsonb_to_recordset(l.discounts) d (percent numeric, amount numeric, for_ever boolean)) g
    WHERE l.discounts IS NOT NULL
), reduced AS (
    SELECT service_plan_id, currency, exponent, units, minor_unit, country, tax_exempt, line_number,
           description, quantity, unit_price, list_amount, includes_tax, tax_class, recurring,
           0::numeric AS discount, 0::numeric AS lasting_discount
    FROM lines WHERE discounts IS NULL
    UNION ALL
    SELECT service_plan_id, currency, exponent, units, minor_unit, country, tax_exempt, line_number,
           description, quantity, unit_price, list_amount, includes_tax, tax_class, recurring,
           list_amount - rest
               + least(rest, greatest(amount - coalesce(sum(rest) OVER earlier, 0), 0)),
           list_amount - lasting_rest + least(lasting_rest, greatest(
               lasting_amount - coalesce(sum(lasting_rest) OVER earlier, 0), 0))
    FROM after_percentages
    WINDOW earlier AS (PARTITION BY service_plan_id ORDER BY line_number
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), rates AS (
    SELECT DISTINCT ON (country, tax_class) country, tax_class, rate
    FROM prepaid.tax_rates WHERE valid_from <= :as_of
    ORDER BY country, tax_class, valid_from DESC
), rated AS (
    SELECT l.*, r.rate, (list_amount - discount) * r.rate * units AS share,
           CASE WHEN includes_tax THEN 1 + r.rate ELSE 1 END AS divisor
    FROM reduced l
    LEFT JOIN rates r ON r.country = l.country AND r.tax_class = l.tax_class AND NOT l.tax_exempt
), ranked AS (
    SELECT *, sum(share) OVER tax_group AS shares, sum(div(share, divisor)) OVER tax_group AS floors,
           row_number() OVER (PARTITION BY service_plan_id, tax_class, rate, includes_tax
               ORDER BY mod(share, divisor) DESC, line_number) AS place
    FROM rated
    WINDOW tax_group AS (PARTITION BY service_plan_id, tax_class, rate, includes_tax)
), taxed AS (
    SELECT *, coalesce(prepaid.allocated(share, divisor, shares, floors, place), 0) * minor_unit AS tax
    FROM ranked
)
INSERT INTO prepaid.charges (service_plan_id, line_number, description, currency, net,
                             tax_class, tax_rate, tax, calculated_for, quantity, unit_price,
                             list_amount, discount, includes_tax, recurring_net)
SELECT service_plan_id, line_number, description, currency, amount.net, tax_class, rate, tax, :as_of,
       quantity, unit_price, list_amount, discount, includes_tax,
       CASE WHEN NOT recurring THEN 0
            WHEN lasting_discount = discount THEN amount.net
            WHEN includes_tax
                THEN prepaid.without_tax(list_amount - lasting_discount, coalesce(rate, 0), exponent)
            ELSE list_amount - lasting_discount END
FROM taxed
CROSS JOIN LATERAL (
    SELECT list_amount - discount - CASE WHEN includes_tax THEN tax ELSE 0 END AS net) amount;

-- name: hold_concessions
-- Less than by list, because a person said so: finance decides before there is an invoice.
SELECT prepaid.hold_concessions(CAST(:plans AS bigint[]), :as_of);
