-- subscriptions.csv: who has which plan with which add-ons. The anchor is the start; history that
-- is imported moves it. (Each term has its own, from which the next one's is made.)

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, subscription_ref text, customer_ref text, plan_code text, started_on date,
    auto_renew boolean, price numeric, addons text, cancelled_on date, quantity integer
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, subscription_ref, customer_ref, plan_code, started_on, auto_renew, price, addons,
               cancelled_on, quantity) FROM STDIN;

-- name: statistics
ANALYZE incoming;

-- name: resolved
-- addons as the file writes them (storage*3), sorted, so that another order is no change.
CREATE TEMP TABLE resolved (
    line integer, subscription_ref text, customer_id bigint, plan_id bigint, started_on date,
    auto_renew boolean, price numeric, addons text[], cancelled_on date, quantity integer,
    subscription_id bigint, known_addons text[], changed boolean
) ON COMMIT DROP;

-- name: resolve
INSERT INTO resolved
SELECT i.line, i.subscription_ref, c.customer_id, l.plan_id, i.started_on, i.auto_renew,
       round(i.price, m.exponent), sold.addons, said.cancelled_on, said.quantity,
       s.subscription_id, known.addons,
       (c.customer_id, l.plan_id, i.started_on, i.auto_renew, i.price, said.cancelled_on, said.quantity)
           IS DISTINCT FROM
           (s.customer_id, s.plan_id, s.started_on, s.auto_renew, s.price, s.cancelled_on, s.quantity)
FROM incoming i
JOIN prepaid.customers c USING (customer_ref)
JOIN prepaid.currencies m USING (currency)
JOIN prepaid.plans l USING (plan_code)
LEFT JOIN prepaid.subscriptions s USING (subscription_ref)
LEFT JOIN (SELECT subscription_id, array_agg(entry ORDER BY entry) AS addons
           FROM prepaid.subscription_addons JOIN prepaid.addons USING (addon_id)
           CROSS JOIN LATERAL (SELECT addon_code || CASE WHEN quantity > 1 THEN '*' || quantity ELSE '' END
                               AS entry) written
           GROUP BY subscription_id) known ON known.subscription_id = s.subscription_id
CROSS JOIN LATERAL (SELECT array_agg(entry ORDER BY entry) AS addons
                    FROM unnest(string_to_array(i.addons, ';')) entry) sold
-- A file without the column says nothing about cancellations or quantities.
CROSS JOIN LATERAL (SELECT CASE WHEN 'cancelled_on' = ANY (CAST(:given AS text[]))
                                THEN i.cancelled_on ELSE s.cancelled_on END AS cancelled_on,
                           coalesce(CASE WHEN 'quantity' = ANY (CAST(:given AS text[]))
                                         THEN i.quantity ELSE s.quantity END, 1) AS quantity) said;

-- name: problems_duplicate
SELECT line, 'subscription_ref' AS column_name, subscription_ref AS found,
       format('each subscription_ref once; line %s has it already', first_line) AS expected
FROM (SELECT line, subscription_ref,
             min(line) OVER (PARTITION BY subscription_ref) AS first_line FROM incoming) i
WHERE line > first_line ORDER BY line;

-- name: problems_customer
SELECT line, 'customer_ref' AS column_name, customer_ref AS found, 'a known customer' AS expected
FROM incoming i
WHERE NOT EXISTS (SELECT FROM prepaid.customers c WHERE c.customer_ref = i.customer_ref)
ORDER BY line;

-- name: problems_plan
SELECT line, 'plan_code' AS column_name, plan_code AS found, 'a known plan' AS expected
FROM incoming i
WHERE NOT EXISTS (SELECT FROM prepaid.plans l WHERE l.plan_code = i.plan_code) ORDER BY line;

-- name: problems_decimals
SELECT i.line, 'price' AS column_name, i.price::text AS found,
       format('at most %s decimals in %s', exponent, currency) AS expected
FROM incoming i JOIN prepaid.customers USING (customer_ref) JOIN prepaid.currencies USING (currency)
WHERE i.price <> round(i.price, exponent) ORDER BY i.line;

-- name: problems_addon
SELECT line, 'addons' AS column_name, code AS found, 'known add-ons' AS expected
FROM incoming CROSS JOIN LATERAL unnest(string_to_array(addons, ';')) entry
CROSS JOIN LATERAL split_part(entry, '*', 1) code
WHERE NOT EXISTS (SELECT FROM prepaid.addons a WHERE a.addon_code = code) ORDER BY line;

-- name: problems_cancelled_on
SELECT line, 'cancelled_on' AS column_name, cancelled_on::text AS found,
       format('a day on or after started_on, %s', started_on) AS expected
FROM incoming WHERE cancelled_on < started_on ORDER BY line;

-- name: problems_moved
SELECT i.line, 'customer_ref' AS column_name, i.customer_ref AS found,
       format('%s: a subscription with service plans or discounted amounts stays with its customer',
              quote_literal(c.customer_ref)) AS expected
FROM resolved r
JOIN incoming i USING (line)
JOIN prepaid.subscriptions s ON s.subscription_id = r.subscription_id
JOIN prepaid.customers c ON c.customer_id = s.customer_id
WHERE r.customer_id <> s.customer_id
  AND (EXISTS (SELECT FROM prepaid.service_plans p WHERE p.subscription_id = s.subscription_id)
       OR EXISTS (SELECT FROM prepaid.discounts d
                  WHERE d.subscription_id = s.subscription_id AND d.amount IS NOT NULL))
ORDER BY i.line;

-- name: no_history_follows
-- The directory brings no terms and no discounts: what still waits for them is a purchase after all.
DELETE FROM prepaid.subscriptions_awaiting_history w
USING resolved r
WHERE w.subscription_id = r.subscription_id
  AND NOT (CAST(:history_follows AS boolean) OR CAST(:discounts_follow AS boolean));

-- name: count
SELECT count(*) FILTER (WHERE subscription_id IS NULL) AS added,
       count(*) FILTER (WHERE subscription_id IS NOT NULL
                        AND (changed OR addons IS DISTINCT FROM known_addons)) AS changed
FROM resolved;

-- name: audit_addons
-- The table of add-ons has no trigger of its own: the change belongs to the subscription.
INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
SELECT 'subscription_changed', 'subscription', subscription_id,
       format('addons: %s -> %s', coalesce(array_to_string(known_addons, ';'), 'none'),
              coalesce(array_to_string(addons, ';'), 'none')),
       prepaid.actor(), prepaid.run_id(), prepaid.as_of()
FROM resolved
WHERE subscription_id IS NOT NULL AND addons IS DISTINCT FROM known_addons ORDER BY line;

-- name: add
INSERT INTO prepaid.subscriptions (subscription_ref, customer_id, plan_id, started_on, anchor_date,
                                   auto_renew, price, cancelled_on, quantity)
SELECT subscription_ref, customer_id, plan_id, started_on, started_on, auto_renew, price, cancelled_on,
       quantity
FROM resolved WHERE subscription_id IS NULL ORDER BY line;

-- name: await_history
INSERT INTO prepaid.subscriptions_awaiting_history (subscription_id)
SELECT s.subscription_id FROM resolved r JOIN prepaid.subscriptions s USING (subscription_ref)
WHERE r.subscription_id IS NULL
  AND (CAST(:history_follows AS boolean) OR CAST(:discounts_follow AS boolean));

-- name: change
UPDATE prepaid.subscriptions s
SET customer_id = r.customer_id, plan_id = r.plan_id, started_on = r.started_on,
    anchor_date = CASE WHEN s.started_on = r.started_on OR EXISTS (
            SELECT FROM prepaid.service_plans p WHERE p.subscription_id = s.subscription_id)
        THEN s.anchor_date ELSE r.started_on END,
    auto_renew = r.auto_renew, price = r.price, cancelled_on = r.cancelled_on,
    quantity = r.quantity
FROM resolved r WHERE r.subscription_id = s.subscription_id AND r.changed;

-- name: remove_addons
DELETE FROM prepaid.subscription_addons sa
USING resolved r, prepaid.addons a
WHERE sa.subscription_id = r.subscription_id AND a.addon_id = sa.addon_id
  AND r.addons IS DISTINCT FROM r.known_addons
  AND NOT EXISTS (SELECT FROM unnest(r.addons) entry WHERE split_part(entry, '*', 1) = a.addon_code);

-- name: add_addons
INSERT INTO prepaid.subscription_addons (subscription_id, addon_id, quantity)
SELECT s.subscription_id, a.addon_id,
       coalesce(CAST(nullif(split_part(entry, '*', 2), '') AS integer), 1)
FROM resolved r
JOIN prepaid.subscriptions s USING (subscription_ref)
CROSS JOIN LATERAL unnest(r.addons) entry
JOIN prepaid.addons a ON a.addon_code = split_part(entry, '*', 1)
WHERE r.addons IS DISTINCT FROM r.known_addons
ORDER BY r.line
ON CONFLICT (subscription_id, addon_id) DO UPDATE SET quantity = excluded.quantity;

-- name: analyze
ANALYZE prepaid.subscriptions, prepaid.subscription_addons;
