-- No amount has more decimals than its currency.
SELECT format('invoice %s: %s %s', i.invoice_number, amount, i.currency) AS finding
FROM prepaid.invoices i
JOIN prepaid.currencies c USING (currency)
CROSS JOIN LATERAL (VALUES (i.net), (i.tax)) amounts (amount)
WHERE amount <> round(amount, c.exponent)
UNION ALL
SELECT format('service plan %s: %s %s', p.service_plan_id, p.net_amount, p.currency)
FROM prepaid.service_plans p
JOIN prepaid.currencies c USING (currency)
WHERE p.net_amount <> round(p.net_amount, c.exponent);
