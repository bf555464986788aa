-- Step 6: the matched payment says Success and fits the invoice, and is used once. (Several records that
-- match together are one payment in parts.)

-- name: hold_mismatch
-- The records were matched earlier; money is checked again where it is spent. What a person assigned
-- may be more than was asked for, and need not name the invoice or the customer.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT i.service_plan_id, 'payment_mismatch', format(
    'Invoice %s asks for %s %s, but its payment record %s says %s, %s %s. '
    'Clear it up with the payment provider, then release the hold.',
    i.invoice_number, i.payable, i.currency, t.refs, t.statuses, t.amount, t.currencies)
FROM prepaid.invoices i
JOIN prepaid.customers c ON c.customer_id = i.customer_id
CROSS JOIN LATERAL (
    SELECT string_agg(m.provider_ref, ', ') AS refs, string_agg(DISTINCT m.status, ', ') AS statuses,
           sum(m.amount) AS amount, string_agg(DISTINCT m.currency, ', ') AS currencies,
           bool_and(m.assigned_by IS NOT NULL) AS assigned,
           bool_and(m.assigned_by IS NOT NULL OR (m.invoice_number,
               coalesce(m.customer_ref, c.customer_ref)) = (i.invoice_number, c.customer_ref)) AS fits
    FROM prepaid.transactions m
    WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched') t
WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open' AND i.payable > 0
  AND ((t.statuses, t.currencies, t.fits) IS DISTINCT FROM ('Success', i.currency, true)
       OR t.amount <> i.payable AND (t.amount < i.payable OR NOT t.assigned))
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
JOIN prepaid.subscriptions s ON s.subscription_id = p.subscription_id
WHERE p.service_plan_id = ANY (:plans) AND p.status = 'Pending' AND (
    s.cancelled_on <= p.planned_start
    OR NOT s.auto_renew AND p.kind = 'renewal' AND p.opened_on IS NOT NULL)
  AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = p.service_plan_id
                  AND h.reason_code = 'subscription_cancelled')
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_concessions
-- Over 0 and not by list: given away. (Step 3 has asked about it; not an earlier release.)
SELECT prepaid.hold_concessions(ARRAY(
    SELECT i.service_plan_id FROM prepaid.invoices i
    WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open' AND i.total = 0), :as_of);

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
