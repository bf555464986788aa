-- Step 6: the payment record in transactions says Success and fits the invoice, and is used once.

-- name: hold_mismatch
-- The record was matched earlier; money is checked again where it is spent.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT i.service_plan_id, 'payment_mismatch', format(
    'Invoice %s is over %s %s, but its payment record %s says %s, %s %s. '
    'Clear it up with the payment provider, then release the hold.',
    i.invoice_number, i.payable, i.currency, t.provider_ref, t.status, t.amount, t.currency)
FROM prepaid.invoices i
JOIN prepaid.customers c USING (customer_id)
CROSS JOIN LATERAL (SELECT * FROM prepaid.transactions
                    WHERE invoice_id = i.invoice_id AND outcome = 'matched' OFFSET 0) t
WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open' AND i.payable > 0
  AND (t.status, t.amount, t.currency, t.invoice_number, coalesce(t.customer_ref, c.customer_ref))
      IS DISTINCT FROM ('Success', i.payable, i.currency, i.invoice_number, c.customer_ref)
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_reversed
-- The same payment was taken back after it had been matched.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT DISTINCT ON (i.service_plan_id) i.service_plan_id, 'payment_reversed', format(
    'Payment %s of invoice %s said Success, and later %s. Clear it up with the customer; releasing '
    'the hold accepts the payment.', t.provider_ref, i.invoice_number, later.status)
FROM prepaid.invoices i
CROSS JOIN LATERAL (SELECT * FROM prepaid.transactions
                    WHERE invoice_id = i.invoice_id AND outcome = 'matched' OFFSET 0) t
CROSS JOIN LATERAL (
    SELECT r.status FROM prepaid.transactions r
    WHERE r.provider = t.provider AND r.provider_ref = t.provider_ref
      AND r.status IN ('Failed', 'Refunded', 'Chargeback') AND r.occurred_at >= t.occurred_at
    ORDER BY r.occurred_at DESC LIMIT 1) later
WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open' AND i.payable > 0
  AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = i.service_plan_id
                  AND h.reason_code = 'payment_reversed' OFFSET 0)
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_cancelled
-- Invoiced, and left before the payment was accepted.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'subscription_cancelled', format(
    'Subscription %s %s after this term was opened. Ask the customer; releasing the hold goes on '
    'with the term all the same.', s.subscription_ref,
    CASE WHEN s.cancelled_on IS NULL THEN 'was set not to renew'
         ELSE 'was cancelled as of ' || s.cancelled_on END)
FROM prepaid.service_plans p
JOIN prepaid.subscriptions s USING (subscription_id)
WHERE p.service_plan_id = ANY (:plans) AND p.status = 'Pending' AND (
    s.cancelled_on <= p.planned_start
    OR NOT s.auto_renew AND p.kind = 'renewal' AND p.opened_on IS NOT NULL)
  AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = p.service_plan_id
                  AND h.reason_code = 'subscription_cancelled' OFFSET 0)
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: note_nothing_to_pay
INSERT INTO prepaid.audit_log
    (event, service_plan_id, entity, entity_id, detail, actor, run_id, as_of)
SELECT 'payment_not_required', i.service_plan_id, 'invoice', i.invoice_id,
       format('Invoice %s is over 0 %s: no payment, no verification', i.invoice_number, i.currency),
       prepaid.actor(), prepaid.run_id(), :as_of
FROM prepaid.invoices i
WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open' AND i.payable = 0
  AND NOT EXISTS (SELECT FROM prepaid.audit_log a WHERE a.service_plan_id = i.service_plan_id
                  AND a.event = 'payment_not_required' AND a.entity_id = i.invoice_id OFFSET 0);

-- name: note_record
WITH records AS MATERIALIZED (
    SELECT i.invoice_id, t.transaction_id
    FROM prepaid.invoices i
    CROSS JOIN LATERAL (
        SELECT transaction_id FROM prepaid.transactions
        WHERE invoice_id = i.invoice_id AND outcome = 'matched' AND status = 'Success'
          AND amount = i.payable AND currency = i.currency OFFSET 0) t
    WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open'
      AND i.transaction_id IS NULL AND i.payable > 0
      AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = i.service_plan_id
                      AND h.released_at IS NULL OFFSET 0)
)
UPDATE prepaid.invoices i SET transaction_id = r.transaction_id
FROM records r WHERE i.invoice_id = r.invoice_id;
