-- discounts.csv: what a subscription gets off its plan and recurring add-ons. One that ended stays on
-- file: with as many terms as it had, or 0.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, subscription_ref text, discount_code text, name text, percent numeric,
    amount numeric, terms integer, starts_on date,
    subscription_id bigint, currency text, exponent smallint,
    discount_id bigint, changed boolean NOT NULL DEFAULT false
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, subscription_ref, discount_code, name, percent, amount, terms, starts_on)
FROM STDIN;

-- name: statistics
ANALYZE incoming;

-- name: resolve
UPDATE incoming i
SET subscription_id = s.subscription_id, currency = m.currency, exponent = m.exponent
FROM prepaid.subscriptions s
JOIN prepaid.customers c USING (customer_id)
JOIN prepaid.currencies m USING (currency)
WHERE s.subscription_ref = i.subscription_ref;

-- name: compare
UPDATE incoming i
SET discount_id = d.discount_id,
    changed = (i.name, i.percent, i.amount, i.terms, i.starts_on)
        IS DISTINCT FROM (d.name, d.percent, d.amount, d.terms, d.starts_on)
FROM prepaid.discounts d
WHERE d.subscription_id = i.subscription_id AND d.discount_code = i.discount_code;

-- name: problems_subscription
SELECT line, 'subscription_ref' AS column_name, subscription_ref AS found,
       'a known subscription' AS expected
FROM incoming WHERE subscription_id IS NULL ORDER BY line;

-- name: problems_duplicate
SELECT line, 'discount_code' AS column_name, discount_code AS found,
       format('each discount_code of a subscription once; line %s has it already', first_line)
           AS expected
FROM (SELECT line, discount_code,
             min(line) OVER (PARTITION BY subscription_ref, discount_code) AS first_line
      FROM incoming) i
WHERE line > first_line ORDER BY line;

-- name: problems_either
SELECT line, 'amount' AS column_name, amount::text AS found,
       CASE WHEN amount IS NULL THEN 'percent or amount: one of them says how much it is'
            ELSE format('nothing: percent says %s already', percent) END AS expected
FROM incoming WHERE (percent IS NULL) = (amount IS NULL) ORDER BY line;

-- name: problems_decimals
SELECT line, 'amount' AS column_name, amount::text AS found,
       format('at most %s decimals in %s', exponent, currency) AS expected
FROM incoming WHERE amount <> round(amount, exponent) ORDER BY line;

-- name: discounts_arrived
-- In this transaction: a subscription whose discount this file brings is never seen without it.
DELETE FROM prepaid.subscriptions_awaiting_history WHERE NOT CAST(:history_follows AS boolean);

-- name: count
SELECT count(*) FILTER (WHERE discount_id IS NULL) AS added,
       count(*) FILTER (WHERE changed) AS changed
FROM incoming;

-- name: add
INSERT INTO prepaid.discounts (subscription_id, discount_code, name, percent, amount, terms, starts_on)
SELECT subscription_id, discount_code, name, percent, round(amount, exponent), terms, starts_on
FROM incoming WHERE discount_id IS NULL ORDER BY line;

-- name: change
UPDATE prepaid.discounts d
SET name = i.name, percent = i.percent, amount = round(i.amount, i.exponent), terms = i.terms,
    starts_on = i.starts_on
FROM incoming i WHERE i.discount_id = d.discount_id AND i.changed;

-- name: analyze
ANALYZE prepaid.discounts;
