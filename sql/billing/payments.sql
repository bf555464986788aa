-- Payment records and what finance can do about those that are parked.

-- name: records
SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number, t.customer_ref, t.amount,
       t.currency, t.status, t.occurred_at, t.outcome, t.outcome_reason AS reason, t.assigned_by, t.as_delivered
FROM prepaid.transactions t
WHERE t.outcome IS NOT DISTINCT FROM coalesce(CAST(:outcome AS text), t.outcome)
ORDER BY t.transaction_id;

-- name: suggestions
SELECT transaction_id, provider_ref, amount, currency, record_invoice_number, invoice_number,
       customer_ref, customer_name, because
FROM prepaid.payment_suggestions ORDER BY transaction_id, invoice_number;

-- name: assign
SELECT prepaid.assign_record(:record, :invoice_number, :note);

-- name: outcome
SELECT outcome, outcome_reason AS reason FROM prepaid.transactions WHERE transaction_id = :record;
