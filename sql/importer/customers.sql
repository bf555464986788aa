-- customers.csv: known customers are updated where they changed; unchanged rows are not touched, so
-- that the audit log has no entries about nothing.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, customer_ref text, name text, email text, country text, currency text,
    tax_exempt boolean, tax_exempt_reason text,
    customer_id bigint, changed boolean NOT NULL DEFAULT false
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, customer_ref, name, email, country, currency, tax_exempt,
               tax_exempt_reason) FROM STDIN;

-- name: statistics
ANALYZE incoming;

-- name: tax_exempt_reason
-- A file without the column says nothing about reasons: customers who stay exempt keep theirs.
UPDATE incoming i SET tax_exempt_reason = c.tax_exempt_reason
FROM prepaid.customers c
WHERE c.customer_ref = i.customer_ref AND i.tax_exempt AND c.tax_exempt_reason IS NOT NULL
  AND NOT 'tax_exempt_reason' = ANY (CAST(:given AS text[]));

-- name: compare
UPDATE incoming i
SET customer_id = c.customer_id,
    changed = (i.name, i.email, i.country, i.currency, i.tax_exempt, i.tax_exempt_reason)
        IS DISTINCT FROM (c.name, c.email, c.country, c.currency, c.tax_exempt, c.tax_exempt_reason)
FROM prepaid.customers c WHERE c.customer_ref = i.customer_ref;

-- name: erased
-- Who was erased stays so: the file has their data still, and must not bring it back.
UPDATE incoming i SET changed = false
FROM prepaid.erasures e WHERE e.customer_id = i.customer_id;

-- name: problems_duplicate
SELECT line, 'customer_ref' AS column_name, customer_ref AS found,
       format('each customer_ref once; line %s has it already', first_line) AS expected
FROM (SELECT line, customer_ref,
             min(line) OVER (PARTITION BY customer_ref) AS first_line FROM incoming) i
WHERE line > first_line ORDER BY line;

-- name: problems_reason
SELECT line, 'tax_exempt_reason' AS column_name, tax_exempt_reason AS found,
       'nothing: the customer is not tax-exempt' AS expected
FROM incoming WHERE tax_exempt_reason IS NOT NULL AND NOT tax_exempt ORDER BY line;

-- name: problems_currency
SELECT line, 'currency' AS column_name, currency AS found,
       'an ISO 4217 currency code such as EUR' AS expected
FROM incoming i
WHERE NOT EXISTS (SELECT FROM prepaid.currencies c WHERE c.currency = i.currency) ORDER BY line;

-- name: problems_currency_in_use
-- Prices and revenue of the past are in the old one; two currencies are never added.
SELECT i.line, 'currency' AS column_name, i.currency AS found,
       format('%s: the currency of a customer with service plans, own prices or discounts stays; '
              'make a new customer', c.currency) AS expected
FROM incoming i JOIN prepaid.customers c USING (customer_id)
WHERE i.currency <> c.currency
  AND EXISTS (SELECT FROM prepaid.subscriptions s
              LEFT JOIN prepaid.service_plans p USING (subscription_id)
              LEFT JOIN prepaid.discounts d USING (subscription_id)
              WHERE s.customer_id = c.customer_id
                AND (p.service_plan_id IS NOT NULL OR s.price IS NOT NULL OR d.amount IS NOT NULL))
ORDER BY i.line;

-- name: differences
SELECT i.line, 'customer_ref' AS column_name, i.customer_ref AS found,
       format('this customer was erased on %s: nothing of the line is taken, remove it from the file',
              e.erased_on) AS said
FROM incoming i JOIN prepaid.erasures e USING (customer_id) ORDER BY i.line;

-- name: count
SELECT count(*) FILTER (WHERE customer_id IS NULL) AS added,
       count(*) FILTER (WHERE changed) AS changed
FROM incoming;

-- name: add
INSERT INTO prepaid.customers (customer_ref, name, email, country, currency, tax_exempt,
                               tax_exempt_reason)
SELECT customer_ref, name, email, country, currency, tax_exempt, tax_exempt_reason
FROM incoming WHERE customer_id IS NULL ORDER BY line;

-- name: change
UPDATE prepaid.customers c
SET name = i.name, email = i.email, country = i.country, currency = i.currency,
    tax_exempt = i.tax_exempt, tax_exempt_reason = i.tax_exempt_reason
FROM incoming i WHERE i.customer_id = c.customer_id AND i.changed;

-- name: analyze
ANALYZE prepaid.customers;
