-- What happens between the two jobs, the same for both sides and not measured.

-- name: providers_deliver
INSERT INTO prepaid.transactions
    (provider, provider_ref, invoice_number, amount, currency, status, occurred_at)
SELECT 'bank', 'R' || invoice_id, invoice_number, total, currency, 'Success', issued_on
FROM prepaid.invoices ORDER BY invoice_id;

-- name: finance_approves
SELECT prepaid.decide_tasks(ARRAY(
    SELECT task_id FROM prepaid.payment_verifications WHERE agrees AND status = 'Open'), 'approved');
