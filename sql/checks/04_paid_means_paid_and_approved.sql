-- Every paid invoice has its own matched Success record of that amount, and an approval by a person.
SELECT format('invoice %s is paid, but %s', i.invoice_number, CASE
    WHEN t.transaction_id IS NULL THEN 'has no matched payment record'
    WHEN NOT approved.yes THEN 'nobody has approved the payment'
    ELSE format('its record says %s %s %s', t.status, t.amount, t.currency) END) AS finding
FROM prepaid.invoices i
LEFT JOIN prepaid.transactions t ON t.transaction_id = i.transaction_id AND t.outcome = 'matched'
    AND t.invoice_id = i.invoice_id
CROSS JOIN LATERAL (SELECT EXISTS (
    SELECT FROM prepaid.tasks k
    WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
      AND k.status <> 'Withdrawn' AND k.decision = 'approved') AS yes) approved
WHERE i.status = 'Paid' AND i.total > 0
  AND ((t.status, t.amount, t.currency) IS DISTINCT FROM ('Success', i.total, i.currency)
       OR NOT approved.yes)
ORDER BY i.invoice_id;
