-- Step 1: the snapshot on the plan's row. The invoice and the confirmation are made from it, so
-- that a price list changed tomorrow does not change what the customer was asked for today.

-- name: hold_cancelled
-- The term is opened some days ahead; meanwhile the customer may have left.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'subscription_cancelled', format(
    'Subscription %s %s after this term was opened. Ask the customer; releasing the hold goes on '
    'with the term all the same.', s.subscription_ref,
    CASE WHEN s.cancelled_on IS NULL THEN 'was set not to renew'
         ELSE 'was cancelled as of ' || s.cancelled_on END)
FROM prepaid.service_plans p
JOIN prepaid.subscriptions s USING (subscription_id)
WHERE p.service_plan_id = ANY (:plans) AND p.retrieved_at IS NULL AND (
    s.cancelled_on <= p.planned_start
    OR NOT s.auto_renew AND p.kind = 'renewal' AND p.opened_on IS NOT NULL)
  AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = p.service_plan_id
                  AND h.reason_code = 'subscription_cancelled' OFFSET 0)
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_without_email
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'no_email', format(
    'Customer %s has no e-mail address, so the confirmation cannot be sent. '
    'Add one (import customers.csv), then release the hold.', c.customer_ref)
FROM prepaid.service_plans p JOIN prepaid.customers c USING (customer_id)
WHERE p.service_plan_id = ANY (:plans)
  AND p.retrieved_at IS NULL AND coalesce(btrim(c.email), '') = ''
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_without_price
-- The subscription's own price is for the plan it has now: after a change of plan it is none for a
-- term of the plan before, which may be twelve times shorter.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'no_price', format(
    'Plan %s has no price in %s and subscription %s has none of its own. '
    'Add one (import plans.csv or subscriptions.csv), then release the hold.',
    l.plan_code, p.currency, s.subscription_ref)
FROM prepaid.service_plans p
JOIN prepaid.subscriptions s USING (subscription_id)
JOIN prepaid.plans l ON l.plan_id = p.plan_id
LEFT JOIN prepaid.plan_prices lp ON lp.plan_id = p.plan_id AND lp.currency = p.currency
CROSS JOIN LATERAL (SELECT CASE WHEN s.plan_id = p.plan_id THEN s.price END AS price) own
WHERE p.service_plan_id = ANY (:plans)
  AND p.retrieved_at IS NULL AND coalesce(p.price, own.price, lp.price) IS NULL
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_without_addon_price
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'no_addon_price', format(
    'No price in %s for a term of this length: add-on %s. '
    'Add it (import addons.csv), then release the hold.',
    p.currency, string_agg(a.addon_code, ', ' ORDER BY a.addon_code))
FROM prepaid.service_plans p
JOIN prepaid.subscription_addons sa USING (subscription_id)
JOIN prepaid.addons a USING (addon_id)
LEFT JOIN prepaid.addon_prices ap ON ap.addon_id = a.addon_id AND ap.currency = p.currency
    AND ap.term_months = p.term_months AND ap.term_days = p.term_days
WHERE p.service_plan_id = ANY (:plans)
  AND p.retrieved_at IS NULL AND ap.price IS NULL
  AND (a.recurring OR p.previous_plan_id IS NULL)
GROUP BY p.service_plan_id, p.currency
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: snapshot
-- A one-time add-on is charged with the subscription's first term only.
WITH details AS MATERIALIZED (
    SELECT p.service_plan_id, c.name, c.email, c.country, c.tax_exempt, l.name AS plan_name,
           l.tax_class, coalesce(p.price, own.price, lp.price) AS price,
           coalesce(sold.addons, '[]') AS addons, coalesce(sold.net, 0) AS addons_net,
           coalesce(sold.recurring, 0) AS addons_recurring
    FROM prepaid.service_plans p
    JOIN prepaid.subscriptions s USING (subscription_id)
    JOIN prepaid.customers c ON c.customer_id = p.customer_id
    JOIN prepaid.plans l ON l.plan_id = p.plan_id
    LEFT JOIN prepaid.plan_prices lp ON lp.plan_id = p.plan_id AND lp.currency = p.currency
    CROSS JOIN LATERAL (SELECT CASE WHEN s.plan_id = p.plan_id THEN s.price END AS price) own
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object('addon_code', a.addon_code, 'name', a.name,
                   'price', ap.price, 'recurring', a.recurring, 'tax_class', a.tax_class)
                   ORDER BY a.addon_code) AS addons,
               sum(ap.price) AS net,
               sum(ap.price) FILTER (WHERE a.recurring) AS recurring
        FROM prepaid.subscription_addons sa
        JOIN prepaid.addons a USING (addon_id)
        JOIN prepaid.addon_prices ap ON ap.addon_id = a.addon_id AND ap.currency = p.currency
            AND ap.term_months = p.term_months AND ap.term_days = p.term_days
        WHERE sa.subscription_id = p.subscription_id
          AND (a.recurring OR p.previous_plan_id IS NULL)
    ) sold
    WHERE p.service_plan_id = ANY (:plans)
      AND p.retrieved_at IS NULL
      AND NOT EXISTS (SELECT FROM prepaid.holds h
                      WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL OFFSET 0)
)
UPDATE prepaid.service_plans p
SET customer_name = d.name, email = d.email, country = d.country, tax_exempt = d.tax_exempt,
    plan_name = d.plan_name, tax_class = d.tax_class, price = d.price, addons = d.addons,
    net_amount = d.price + d.addons_net, recurring_amount = d.price + d.addons_recurring,
    retrieved_at = clock_timestamp()
FROM details d WHERE p.service_plan_id = d.service_plan_id;
