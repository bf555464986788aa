-- Step 1: the snapshot on the plan's row. The invoice and the confirmation are made from it, so
-- that a price list changed tomorrow does not change what the customer was asked for today.

-- name: take_present_plan
-- Until its details are taken, an opened term is for the plan that the subscription has now. An order
-- (it was not opened here) keeps the plan that its price was agreed for.
WITH present AS MATERIALIZED (
    SELECT p.service_plan_id, l.plan_id, l.term_months, l.term_days
    FROM prepaid.service_plans p
    JOIN prepaid.subscriptions s ON s.subscription_id = p.subscription_id
    JOIN prepaid.plans l ON l.plan_id = s.plan_id
    WHERE p.service_plan_id = ANY (:plans) AND p.retrieved_at IS NULL AND p.opened_on IS NOT NULL
      AND s.plan_id <> p.plan_id
)
UPDATE prepaid.service_plans p
SET plan_id = l.plan_id, term_months = l.term_months, term_days = l.term_days,
    end_date = prepaid.term_end(p.anchor_date, p.start_date, l.term_months, l.term_days)
FROM present l WHERE p.service_plan_id = l.service_plan_id;

-- name: hold_cancelled
-- The term is opened some days ahead; meanwhile the customer may have left.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'subscription_cancelled', format(
    'Subscription %s %s after this term was opened. Ask the customer; releasing the hold goes on '
    'with the term all the same.', s.subscription_ref,
    CASE WHEN s.cancelled_on IS NULL THEN 'was set not to renew'
         ELSE 'was cancelled as of ' || s.cancelled_on END)
FROM prepaid.service_plans p
CROSS JOIN LATERAL (SELECT * FROM prepaid.subscriptions
                    WHERE subscription_id = p.subscription_id OFFSET 0) s
WHERE p.service_plan_id = ANY (:plans) AND p.retrieved_at IS NULL AND (
    s.cancelled_on <= p.planned_start
    OR NOT s.auto_renew AND p.kind = 'renewal' AND p.opened_on IS NOT NULL)
  AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = p.service_plan_id
                  AND h.reason_code = 'subscription_cancelled' OFFSET 0)
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_without_email
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'no_email', format(
    'Customer %s has no email address, so the confirmation cannot be sent. '
    'Add one (at the sign-off desk, or import customers.csv), then release the hold.', c.customer_ref)
FROM prepaid.service_plans p
CROSS JOIN LATERAL (SELECT * FROM prepaid.customers
                    WHERE customer_id = p.customer_id OFFSET 0) c
WHERE p.service_plan_id = ANY (:plans)
  AND p.retrieved_at IS NULL AND coalesce(btrim(c.email), '') = ''
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_without_price
-- The price list's price is the one that is valid on the term's start. The subscription's own price
-- is for the plan it has now: after a change of plan it is none for a term of the plan before, which
-- may be twelve times shorter.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'no_price', format(
    'Plan %s has no price in %s on %s and subscription %s has none of its own. '
    'Add one (import plans.csv or subscriptions.csv), then release the hold.',
    l.plan_code, p.currency, p.start_date, s.subscription_ref)
FROM prepaid.service_plans p
CROSS JOIN LATERAL (SELECT * FROM prepaid.subscriptions
                    WHERE subscription_id = p.subscription_id OFFSET 0) s
CROSS JOIN LATERAL (SELECT * FROM prepaid.plans WHERE plan_id = p.plan_id OFFSET 0) l
LEFT JOIN LATERAL (SELECT price FROM prepaid.plan_prices
                   WHERE plan_id = p.plan_id AND currency = p.currency AND valid_from <= p.start_date
                   ORDER BY valid_from DESC LIMIT 1) lp ON true
CROSS JOIN LATERAL (SELECT CASE WHEN s.plan_id = p.plan_id THEN s.price END AS price) own
WHERE p.service_plan_id = ANY (:plans)
  AND p.retrieved_at IS NULL AND coalesce(p.price, own.price, lp.price) IS NULL
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_without_addon_price
-- A one-time add-on is charged once: no other term of the subscription that still stands has it.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'no_addon_price', format(
    'No price in %s on %s for a term of this length: add-on %s. '
    'Add it (import addons.csv), then release the hold.',
    p.currency, p.start_date, string_agg(a.addon_code, ', ' ORDER BY a.addon_code))
FROM prepaid.service_plans p
JOIN prepaid.subscription_addons sa ON sa.subscription_id = p.subscription_id
JOIN prepaid.addons a ON a.addon_id = sa.addon_id
WHERE p.service_plan_id = ANY (:plans)
  AND p.retrieved_at IS NULL
  AND NOT EXISTS (
      SELECT FROM prepaid.addon_prices ap
      WHERE ap.addon_id = a.addon_id AND ap.currency = p.currency
        AND ap.term_months = p.term_months AND ap.term_days = p.term_days
        AND ap.valid_from <= p.start_date)
  AND (a.recurring OR NOT EXISTS (
      SELECT FROM prepaid.service_plans other
      WHERE other.subscription_id = p.subscription_id
        AND (other.status <> 'Cancelled' OR other.activated_on IS NOT NULL
             AND other.end_date > other.start_date)
        AND other.service_plan_id <> p.service_plan_id
        AND other.addons @> jsonb_build_array(jsonb_build_object('addon_code', a.addon_code))))
GROUP BY p.service_plan_id
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: snapshot
-- An order has its price already, that of the whole term. A discount for n terms counts the terms of
-- the subscription that still stand, imported ones too.
WITH details AS MATERIALIZED (
    SELECT p.service_plan_id, c.name, c.email, c.country, c.tax_exempt,
           CASE WHEN c.tax_exempt THEN c.tax_exempt_reason END AS tax_exempt_reason,
           l.name AS plan_name, l.tax_class, coalesce(p.price, own.price, lp.price) AS price,
           p.price IS NULL AND own.price IS NULL AND lp.includes_tax AS price_includes_tax,
           CASE WHEN p.price IS NULL THEN s.quantity ELSE 1 END AS quantity,
           coalesce(sold.addons, '[]') AS addons, granted.discounts
    FROM prepaid.service_plans p
    CROSS JOIN LATERAL (SELECT * FROM prepaid.subscriptions
                        WHERE subscription_id = p.subscription_id OFFSET 0) s
    CROSS JOIN LATERAL (SELECT * FROM prepaid.customers
                        WHERE customer_id = p.customer_id OFFSET 0) c
    CROSS JOIN LATERAL (SELECT * FROM prepaid.plans WHERE plan_id = p.plan_id OFFSET 0) l
    LEFT JOIN LATERAL (SELECT price, includes_tax FROM prepaid.plan_prices
                       WHERE plan_id = p.plan_id AND currency = p.currency AND valid_from <= p.start_date
                       ORDER BY valid_from DESC LIMIT 1) lp ON true
    CROSS JOIN LATERAL (SELECT CASE WHEN s.plan_id = p.plan_id THEN s.price END AS price) own
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object('addon_code', a.addon_code, 'name', a.name,
                   'price', listed.price, 'includes_tax', listed.includes_tax,
                   'quantity', sa.quantity, 'recurring', a.recurring, 'tax_class', a.tax_class)
                   ORDER BY a.addon_code) AS addons
        FROM prepaid.subscription_addons sa
        JOIN prepaid.addons a USING (addon_id)
        CROSS JOIN LATERAL (
            SELECT ap.price, ap.includes_tax FROM prepaid.addon_prices ap
            WHERE ap.addon_id = a.addon_id AND ap.currency = p.currency
              AND ap.term_months = p.term_months AND ap.term_days = p.term_days
              AND ap.valid_from <= p.start_date
            ORDER BY ap.valid_from DESC LIMIT 1) listed
        WHERE sa.subscription_id = p.subscription_id
          AND (a.recurring OR NOT EXISTS (
              SELECT FROM prepaid.service_plans other
              WHERE other.subscription_id = p.subscription_id
                AND (other.status <> 'Cancelled' OR other.activated_on IS NOT NULL
                     AND other.end_date > other.start_date)
                AND other.service_plan_id <> p.service_plan_id
                AND other.addons @> jsonb_build_array(jsonb_build_object('addon_code', a.addon_code))
              OFFSET 0))
    ) sold
    -- Most subscriptions have none: one look-up costs less than an aggregate over nothing.
    CROSS JOIN LATERAL (SELECT CASE WHEN EXISTS (
        SELECT FROM prepaid.discounts d WHERE d.subscription_id = p.subscription_id OFFSET 0
    ) THEN (
        SELECT jsonb_agg(jsonb_build_object('discount_code', d.discount_code, 'name', d.name,
                   'percent', d.percent, 'amount', d.amount, 'for_ever', d.terms IS NULL)
                   ORDER BY d.discount_code)
        FROM prepaid.discounts d
        CROSS JOIN LATERAL (SELECT coalesce(d.starts_on, s.started_on) AS on_date) starts
        WHERE d.subscription_id = p.subscription_id AND p.start_date >= starts.on_date
          AND (d.terms IS NULL OR d.terms > (
              SELECT count(*) FROM prepaid.service_plans earlier
              WHERE earlier.subscription_id = p.subscription_id
                AND (earlier.status <> 'Cancelled' OR earlier.activated_on IS NOT NULL
                     AND earlier.end_date > earlier.start_date)
                AND earlier.start_date >= starts.on_date AND earlier.start_date < p.start_date))
    ) END AS discounts) granted
    WHERE p.service_plan_id = ANY (:plans)
      AND p.retrieved_at IS NULL
      AND NOT EXISTS (SELECT FROM prepaid.holds h
                      WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL OFFSET 0)
)
UPDATE prepaid.service_plans p
SET customer_name = d.name, email = d.email, country = d.country, tax_exempt = d.tax_exempt,
    tax_exempt_reason = d.tax_exempt_reason, plan_name = d.plan_name, tax_class = d.tax_class,
    price = d.price, price_includes_tax = coalesce(d.price_includes_tax, false),
    quantity = d.quantity, addons = d.addons, discounts = d.discounts,
    retrieved_at = clock_timestamp()
FROM details d WHERE p.service_plan_id = d.service_plan_id;
