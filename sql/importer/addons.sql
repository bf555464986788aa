-- addons.csv: one row per add-on, term, currency and day from which the price holds: the price when
-- it is sold with a plan of that term. What belongs to the add-on itself stands on every row of it and
-- must agree.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, addon_code text, name text, term interval, currency text, price numeric,
    recurring boolean, tax_class text, includes_tax boolean, valid_from date,
    term_months integer GENERATED ALWAYS AS (
        (extract(year FROM term) * 12 + extract(month FROM term))::integer) STORED,
    term_days integer GENERATED ALWAYS AS (extract(day FROM term)::integer) STORED,
    addon_id bigint, priced boolean NOT NULL DEFAULT false, changed boolean NOT NULL DEFAULT false
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, addon_code, name, term, currency, price, recurring, tax_class, includes_tax,
               valid_from) FROM STDIN;

-- name: tax_class
-- A file without the column says nothing about tax classes: known add-ons keep theirs.
UPDATE incoming i
SET tax_class = CASE WHEN 'tax_class' = ANY (CAST(:given AS text[])) THEN 'standard'
    ELSE coalesce((SELECT a.tax_class FROM prepaid.addons a WHERE a.addon_code = i.addon_code), 'standard')
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
    SELECT ap.includes_tax FROM prepaid.addon_prices ap JOIN prepaid.addons a USING (addon_id)
    WHERE a.addon_code = self.addon_code AND ap.currency = self.currency
      AND ap.term_months = self.term_months AND ap.term_days = self.term_days
      AND ap.valid_from <= given.valid_from
    ORDER BY ap.valid_from DESC LIMIT 1) known ON true
WHERE self.line = i.line;

-- name: compare
UPDATE incoming i
SET addon_id = a.addon_id,
    changed = (i.name, i.recurring, i.tax_class) IS DISTINCT FROM (a.name, a.recurring, a.tax_class)
FROM prepaid.addons a WHERE a.addon_code = i.addon_code;

-- name: compare_prices
UPDATE incoming i
SET priced = true,
    changed = changed OR (i.price, i.includes_tax) <> (ap.price, ap.includes_tax)
FROM prepaid.addon_prices ap
WHERE ap.addon_id = i.addon_id AND ap.currency = i.currency AND ap.valid_from = i.valid_from
  AND ap.term_months = i.term_months AND ap.term_days = i.term_days;

-- name: problems_duplicate
SELECT line, 'currency' AS column_name, currency AS found,
       format('each currency and valid_from of an addon_code and term once; line %s has it already',
              first_line) AS expected
FROM (SELECT line, currency, min(line) OVER (
          PARTITION BY addon_code, term_months, term_days, currency, valid_from) AS first_line
      FROM incoming) i
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
    SELECT DISTINCT ON (addon_code) addon_code, line, name, recurring, tax_class
    FROM incoming ORDER BY addon_code, line
)
SELECT i.line, d.column_name, d.found,
       format('%s as on line %s: all rows of an addon_code agree', quote_literal(d.first), f.line) AS expected
FROM incoming i JOIN first_rows f USING (addon_code)
CROSS JOIN LATERAL (VALUES
    ('name', i.name, f.name), ('recurring', i.recurring::text, f.recurring::text),
    ('tax_class', i.tax_class, f.tax_class)) d (column_name, found, first)
WHERE d.found <> d.first ORDER BY i.line;

-- name: count
SELECT count(*) FILTER (WHERE NOT priced) AS added,
       count(*) FILTER (WHERE priced AND changed) AS changed
FROM incoming;

-- name: add
INSERT INTO prepaid.addons (addon_code, name, recurring, tax_class)
SELECT addon_code, name, recurring, tax_class
FROM (SELECT DISTINCT ON (addon_code) * FROM incoming WHERE addon_id IS NULL
      ORDER BY addon_code, line) i
ORDER BY line;

-- name: change
UPDATE prepaid.addons a
SET name = i.name, recurring = i.recurring, tax_class = i.tax_class
FROM (SELECT DISTINCT addon_id, name, recurring, tax_class FROM incoming) i
WHERE i.addon_id = a.addon_id
  AND (i.name, i.recurring, i.tax_class) IS DISTINCT FROM (a.name, a.recurring, a.tax_class);

-- name: add_prices
INSERT INTO prepaid.addon_prices (addon_id, term_months, term_days, currency, price, valid_from,
                                  includes_tax)
SELECT a.addon_id, i.term_months, i.term_days, i.currency, round(i.price, c.exponent), i.valid_from,
       i.includes_tax
FROM incoming i JOIN prepaid.addons a USING (addon_code) JOIN prepaid.currencies c USING (currency)
WHERE NOT i.priced ORDER BY i.line;

-- name: change_prices
UPDATE prepaid.addon_prices ap SET price = round(i.price, c.exponent), includes_tax = i.includes_tax
FROM incoming i JOIN prepaid.currencies c USING (currency)
WHERE ap.addon_id = i.addon_id AND ap.currency = i.currency AND ap.valid_from = i.valid_from
  AND ap.term_months = i.term_months AND ap.term_days = i.term_days
  AND (i.price, i.includes_tax) <> (ap.price, ap.includes_tax);
