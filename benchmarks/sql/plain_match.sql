-- What match_payments writes when every record fits its invoice.
UPDATE prepaid.transactions t
SET outcome = 'matched', invoice_id = i.invoice_id, decided_at = clock_timestamp()
FROM prepaid.invoices i
WHERE i.invoice_number = t.invoice_number
  AND t.transaction_id BETWEEN :first AND :last;
