-- Step 13: the month in the reporting currency. What was there at the start is converted at the last
-- month-end's rate, all that moved or began and what is there at the end at this one's; what the start
-- gained by the rates alone is an amount of its own, so that no movement comes from them.

-- name: exponent
SELECT exponent FROM prepaid.currencies WHERE currency = :reporting_currency;

-- name: rates
-- The rates that each month needs: opening_rate only for a currency that had MRR at its start.
SELECT f.month, f.currency, n.rate, b.rate AS opening_rate, f.needs_opening
FROM (
    SELECT month, currency, bool_or(opening_mrr > 0) AS needs_opening
    FROM (
        SELECT month, currency, opening_mrr FROM revenue.mrr_bridge
        UNION ALL
        SELECT month, currency, 0 FROM revenue.plan_activations
        WHERE kind IN ('new', 'renewal') AND net_amount > 0
    ) k
    WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
      AND currency <> :reporting_currency
    GROUP BY month, currency
) f
LEFT JOIN revenue.exchange_rates n ON n.month = f.month AND n.currency = f.currency
    AND n.reporting_currency = :reporting_currency
LEFT JOIN revenue.exchange_rates b ON b.month = f.month - interval '1 month'
    AND b.currency = f.currency AND b.reporting_currency = :reporting_currency
ORDER BY f.month, f.currency;

-- name: amounts
-- Not rounded. What cannot be converted is left out here, and such a month is not shown.
WITH figures AS (
    SELECT month, currency, 'opening_mrr' AS figure, opening_mrr AS amount FROM revenue.mrr_bridge
    UNION ALL SELECT month, currency, 'mrr', closing_mrr FROM revenue.mrr_bridge
    UNION ALL SELECT month, currency, movement, amount FROM revenue.mrr_movements
    UNION ALL
    SELECT month, currency, kind || '_net', net_amount FROM revenue.plan_activations
    WHERE kind IN ('new', 'renewal')
), rates AS (
    SELECT month, currency, rate FROM revenue.exchange_rates
    WHERE reporting_currency = :reporting_currency
    UNION ALL
    SELECT m::date, CAST(:reporting_currency AS text), 1
    FROM generate_series(CAST(:first_month AS timestamp) - interval '1 month',
                         CAST(:last_month AS timestamp), interval '1 month') m
), converted AS (
    SELECT f.month, f.figure,
           f.amount * CASE f.figure WHEN 'opening_mrr' THEN b.rate ELSE n.rate END AS amount
    FROM figures f
    LEFT JOIN rates n ON n.month = f.month AND n.currency = f.currency
    LEFT JOIN rates b ON b.month = f.month - interval '1 month' AND b.currency = f.currency
    WHERE f.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
    UNION ALL
    SELECT f.month, 'exchange_rates', f.amount * (n.rate - b.rate)
    FROM figures f
    JOIN rates n ON n.month = f.month AND n.currency = f.currency
    JOIN rates b ON b.month = f.month - interval '1 month' AND b.currency = f.currency
    WHERE f.figure = 'opening_mrr'
      AND f.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
)
SELECT month, figure, coalesce(sum(amount), 0) AS amount FROM converted GROUP BY month, figure;
