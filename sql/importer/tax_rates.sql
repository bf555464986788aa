-- tax_rates.csv: a rate holds from its date until the next one of the same country and class.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, country text, tax_class text, rate numeric, valid_from date,
    known boolean NOT NULL DEFAULT false, changed boolean NOT NULL DEFAULT false
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, country, tax_class, rate, valid_from) FROM STDIN;

-- name: compare
UPDATE incoming i SET known = true, changed = i.rate <> r.rate
FROM prepaid.tax_rates r
WHERE r.country = i.country AND r.tax_class = i.tax_class AND r.valid_from = i.valid_from;

-- name: problems_duplicate
SELECT line, 'valid_from' AS column_name, valid_from::text AS found,
       format('each valid_from of a country and tax_class once; line %s has it already', first_line)
           AS expected
FROM (SELECT line, valid_from,
             min(line) OVER (PARTITION BY country, tax_class, valid_from) AS first_line
      FROM incoming) i
WHERE line > first_line ORDER BY line;

-- name: count
SELECT count(*) FILTER (WHERE NOT known) AS added, count(*) FILTER (WHERE changed) AS changed
FROM incoming;

-- name: add
INSERT INTO prepaid.tax_rates (country, tax_class, rate, valid_from)
SELECT country, tax_class, rate, valid_from FROM incoming WHERE NOT known ORDER BY line;

-- name: change
UPDATE prepaid.tax_rates r SET rate = i.rate
FROM incoming i
WHERE r.country = i.country AND r.tax_class = i.tax_class AND r.valid_from = i.valid_from
  AND i.changed;
