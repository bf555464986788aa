-- Every paid invoice has its own matched Success records of that amount, and an approval by a person.
SELECT format('invoice %s is paid, but %s', i.invoice_number, CASE
    WHEN t.records = 0 THEN 'has no matched payment record'
    WHEN NOT approved.yes THEN 'nobody has approved the payment'
    WHEN NOT t.named THEN 'names a record that has not paid it'
    ELSE format('its records say %s %s %s', t.statuses, t.amount, t.currencies) END) AS finding
FROM prepaid.invoices i
CROSS JOIN LATERAL (
    SELECT count(*) AS records, sum(amount) AS amount, string_agg(DISTINCT status, ', ') AS statuses,
           string_agg(DISTINCT currency, ', ') AS currencies,
           coalesce(bool_or(transaction_id = i.transaction_id), false) AS named,
           bool_and(assigned_by IS NOT NULL) AS assigned
    FROM prepaid.transactions WHERE invoice_id = i.invoice_id AND outcome = 'matched') t
CROSS JOIN LATERAL (SELECT EXISTS (
    SELECT FROM prepaid.tasks k
    WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
      AND k.status <> 'Withdrawn' AND k.decision = 'approved') AS yes) approved
WHERE i.status = 'Paid' AND i.payable > 0
  AND ((t.statuses, t.currencies) IS DISTINCT FROM ('Success', i.currency)
       OR t.amount <> i.payable AND (t.amount < i.payable OR NOT t.assigned)
       OR NOT t.named OR NOT approved.yes)
ORDER BY i.invoice_id;
