-- plans.csv: one row per plan, currency and day from which the price holds. What belongs to the plan itself stands on every row of
-- it and must agree.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, plan_code text, name text, term interval, currency text, price numeric,
    tax_class text, includes_tax boolean, valid_from date,
    term_months integer GENERATED ALWAYS AS (
        (extract(year FROM term) * 12 + extract(month FROM term))::integer) STORED,
    term_days integer GENERATED ALWAYS AS (extract(day FROM term)::integer) STORED,
    plan_id bigint, priced boolean NOT NULL DEFAULT false, changed boolean NOT NULL DEFAULT false
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, plan_code, name, term, currency, price, tax_class, includes_tax, valid_from)
FROM STDIN;

-- name: tax_class
-- A file without the column says nothing about tax classes: known plans keep theirs.
UPDATE incoming i
SET tax_class = CASE WHEN 'tax_class' = ANY (CAST(:given AS text[])) THEN 'standard'
    ELSE coalesce((SELECT p.tax_class FROM prepaid.plans p WHERE p.plan_code = i.plan_code), 'standard')
    END
WHERE tax_class IS NULL;

-- name: price_rules
-- An empty valid_from is "from the beginning". A file without price_includes_tax says nothing about
-- it: known prices keep theirs, and a new one is like the one before it.
UPDATE incoming i
SET valid_from = given.valid_from,
    includes_tax = CASE WHEN 'price_includes_tax' = ANY (CAST(:given AS text[]))
        THEN coalesce(i.includes_tax, false) ELSE coalesce(known.includes_tax, false) END
FROM incoming self
CROSS JOIN LATERAL (SELECT coalesce(self.valid_from, '1900-01-01') AS valid_from) given
LEFT JOIN LATERAL (
    SELECT lp.includes_tax FROM prepaid.plan_prices lp JOIN prepaid.plans p USING (plan_id)
    WHERE p.plan_code = self.plan_code AND lp.currency = self.currency
      AND lp.valid_from <= given.valid_from
    ORDER BY lp.valid_from DESC LIMIT 1) known ON true
WHERE self.line = i.line;

-- name: compare
UPDATE incoming i
SET plan_id = p.plan_id,
    changed = (i.name, i.term_months, i.term_days, i.tax_class)
        IS DISTINCT FROM (p.name, p.term_months, p.term_days, p.tax_class)
FROM prepaid.plans p WHERE p.plan_code = i.plan_code;

-- name: compare_prices
UPDATE incoming i
SET priced = true,
    changed = changed OR (i.price, i.includes_tax) IS DISTINCT FROM (lp.price, lp.includes_tax)
FROM prepaid.plan_prices lp
WHERE lp.plan_id = i.plan_id AND lp.currency = i.currency AND lp.valid_from = i.valid_from;

-- name: problems_duplicate
SELECT line, 'currency' AS column_name, currency AS found,
       format('each currency and valid_from of a plan_code once; line %s has it already', first_line)
           AS expected
FROM (SELECT line, currency, min(line) OVER (
          PARTITION BY plan_code, currency, valid_from) AS first_line FROM incoming) i
WHERE line > first_line ORDER BY line;

-- name: problems_currency
SELECT line, 'currency' AS column_name, currency AS found,
       'an ISO 4217 currency code such as EUR' AS expected
FROM incoming i
WHERE NOT EXISTS (SELECT FROM prepaid.currencies c WHERE c.currency = i.currency) ORDER BY line;

-- name: problems_decimals
SELECT line, 'price' AS column_name, price::text AS found,
       format('at most %s decimals in %s', exponent, currency) AS expected
FROM incoming JOIN prepaid.currencies USING (currency)
WHERE price <> round(price, exponent) ORDER BY line;

-- name: problems_disagreement
WITH first_rows AS (
    SELECT DISTINCT ON (plan_code) plan_code, line, name, term, tax_class
    FROM incoming ORDER BY plan_code, line
)
SELECT i.line, d.column_name, d.found,
       format('%s as on line %s: all rows of a plan_code agree', quote_literal(d.first), f.line) AS expected
FROM incoming i JOIN first_rows f USING (plan_code)
CROSS JOIN LATERAL (VALUES
    ('name', i.name, f.name), ('term', i.term::text, f.term::text),
    ('tax_class', i.tax_class, f.tax_class)) d (column_name, found, first)
WHERE d.found <> d.first ORDER BY i.line;

-- name: problems_term_in_use
-- Anchors, add-on prices and what was agreed with customers hang on the term.
SELECT i.line, 'term' AS column_name, i.term::text AS found,
       format('%s: the term of a plan that has subscriptions stays; use a new plan_code',
              make_interval(months => p.term_months, days => p.term_days)) AS expected
FROM incoming i JOIN prepaid.plans p USING (plan_id)
WHERE (i.term_months, i.term_days) <> (p.term_months, p.term_days)
  AND EXISTS (SELECT FROM prepaid.subscriptions s WHERE s.plan_id = p.plan_id)
ORDER BY i.line;

-- name: count
SELECT count(*) FILTER (WHERE NOT priced) AS added,
       count(*) FILTER (WHERE priced AND changed) AS changed
FROM incoming;

-- name: add
INSERT INTO prepaid.plans (plan_code, name, term_months, term_days, tax_class)
SELECT plan_code, name, term_months, term_days, tax_class
FROM (SELECT DISTINCT ON (plan_code) * FROM incoming WHERE plan_id IS NULL ORDER BY plan_code, line) i
ORDER BY line;

-- name: change
UPDATE prepaid.plans p
SET name = i.name, term_months = i.term_months, term_days = i.term_days, tax_class = i.tax_class
FROM (SELECT DISTINCT plan_id, name, term_months, term_days, tax_class FROM incoming) i
WHERE i.plan_id = p.plan_id
  AND (i.name, i.term_months, i.term_days, i.tax_class)
      IS DISTINCT FROM (p.name, p.term_months, p.term_days, p.tax_class);

-- name: add_prices
INSERT INTO prepaid.plan_prices (plan_id, currency, price, valid_from, includes_tax)
SELECT p.plan_id, i.currency, round(i.price, c.exponent), i.valid_from, i.includes_tax
FROM incoming i JOIN prepaid.plans p USING (plan_code) JOIN prepaid.currencies c USING (currency)
WHERE NOT i.priced ORDER BY i.line;

-- name: change_prices
UPDATE prepaid.plan_prices lp SET price = round(i.price, c.exponent), includes_tax = i.includes_tax
FROM incoming i JOIN prepaid.currencies c USING (currency)
WHERE lp.plan_id = i.plan_id AND lp.currency = i.currency AND lp.valid_from = i.valid_from
  AND (i.price, i.includes_tax) IS DISTINCT FROM (lp.price, lp.includes_tax);
