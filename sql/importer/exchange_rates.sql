-- exchange_rates.csv: what one unit of a currency is worth in the reporting currency at a month's end.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, month date, currency text, rate numeric, reporting_currency text,
    known boolean NOT NULL DEFAULT false, changed boolean NOT NULL DEFAULT false
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, month, currency, rate, reporting_currency) FROM STDIN;

-- name: complete
UPDATE incoming SET reporting_currency = CAST(:reporting_currency AS text)
WHERE reporting_currency IS NULL;

-- name: compare
UPDATE incoming i SET known = true, changed = i.rate <> r.rate
FROM revenue.exchange_rates r
WHERE r.month = i.month AND r.currency = i.currency AND r.reporting_currency = i.reporting_currency;

-- name: problems_without_reporting_currency
SELECT line, 'reporting_currency' AS column_name, '' AS found,
       'a currency here, or PREPAID_REPORTING_CURRENCY set' AS expected
FROM incoming WHERE reporting_currency IS NULL ORDER BY line;

-- name: problems_currency
SELECT line, k.column_name, k.currency AS found, 'an ISO 4217 currency code such as USD' AS expected
FROM incoming
CROSS JOIN LATERAL (VALUES
    ('currency', incoming.currency), ('reporting_currency', incoming.reporting_currency)
) k (column_name, currency)
WHERE NOT EXISTS (SELECT FROM prepaid.currencies c WHERE c.currency = k.currency)
  AND k.currency IS NOT NULL
ORDER BY line;

-- name: problems_same_currency
SELECT line, 'currency' AS column_name, currency AS found,
       'another currency than the reporting currency' AS expected
FROM incoming WHERE currency = reporting_currency ORDER BY line;

-- name: problems_duplicate
SELECT line, 'month' AS column_name, to_char(month, 'YYYY-MM') AS found,
       format('each month of two currencies once; line %s has it already', first_line) AS expected
FROM (SELECT line, month,
             min(line) OVER (PARTITION BY month, currency, reporting_currency) AS first_line
      FROM incoming) i
WHERE line > first_line ORDER BY line;

-- name: count
SELECT count(*) FILTER (WHERE NOT known) AS added, count(*) FILTER (WHERE changed) AS changed
FROM incoming;

-- name: add
INSERT INTO revenue.exchange_rates (month, currency, reporting_currency, rate)
SELECT month, currency, reporting_currency, rate FROM incoming WHERE NOT known ORDER BY line;

-- name: change
UPDATE revenue.exchange_rates r SET rate = i.rate
FROM incoming i
WHERE r.month = i.month AND r.currency = i.currency AND r.reporting_currency = i.reporting_currency
  AND i.changed;
