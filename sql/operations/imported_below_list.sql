-- Imported prices and discounts that take a subscription below the price list, by more than a person may without finance.
WITH own AS (
    SELECT s.subscription_id, s.subscription_ref, s.price, c.currency, l.plan_code,
           CASE WHEN listed.includes_tax THEN prepaid.without_tax(listed.price, CASE WHEN c.tax_exempt THEN 0
                    ELSE coalesce(taxed.rate, 0) END, m.exponent) ELSE listed.price END AS list_price
    FROM prepaid.subscriptions s
    JOIN prepaid.customers c USING (customer_id)
    JOIN prepaid.currencies m USING (currency)
    JOIN prepaid.plans l USING (plan_id)
    CROSS JOIN LATERAL (
        SELECT price, includes_tax FROM prepaid.plan_prices
        WHERE plan_id = s.plan_id AND currency = c.currency AND valid_from <= CAST(:as_of AS date)
        ORDER BY valid_from DESC LIMIT 1) listed
    LEFT JOIN LATERAL (
        SELECT rate FROM prepaid.tax_rates
        WHERE country = c.country AND tax_class = l.tax_class AND valid_from <= CAST(:as_of AS date)
        ORDER BY valid_from DESC LIMIT 1) taxed ON true
    WHERE s.price IS NOT NULL AND (s.cancelled_on IS NULL OR s.cancelled_on > CAST(:as_of AS date))
      AND NOT EXISTS (
          SELECT FROM prepaid.requests r
          WHERE r.subscription_id = s.subscription_id AND r.kind = 'change'
            AND (r.after ->> 'plan_id')::bigint = s.plan_id AND (r.after ->> 'price')::numeric = s.price
            AND (r.before -> 'plan_id', r.before -> 'price') IS DISTINCT FROM
                (r.after -> 'plan_id', r.after -> 'price'))
)
SELECT format('subscription %s: its own price %s %s is %s %% below the list price of %s, %s', o.subscription_ref,
              o.price, o.currency, round(100 - 100 * o.price / o.list_price, 1), o.plan_code, o.list_price) AS finding
FROM own o CROSS JOIN prepaid.installation i
WHERE o.price < o.list_price * (100 - i.concession_percent) / 100
UNION ALL
SELECT format('subscription %s: the discount %s takes all of the plan''s price', s.subscription_ref, d.discount_code)
FROM prepaid.discounts d JOIN prepaid.subscriptions s USING (subscription_id)
WHERE d.percent = 100 AND d.terms IS DISTINCT FROM 0
  AND (s.cancelled_on IS NULL OR s.cancelled_on > CAST(:as_of AS date))
ORDER BY 1;
