-- Every plan that waits is in the queue, every plan that waits for its payment has a live invoice, and no matched payment belongs to a cancelled plan, unless it is credited.
SELECT format('service plan %s waits for its payment and has no live invoice', p.service_plan_id) AS finding
FROM prepaid.service_plans p
WHERE p.status = 'Pending' AND p.invoiced_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM prepaid.invoices i
                  WHERE i.service_plan_id = p.service_plan_id AND i.status <> 'Void')
UNION ALL
SELECT format('service plan %s is %s and in no queue', p.service_plan_id, p.status)
FROM prepaid.service_plans p
WHERE p.status IN ('Pending', 'Processing')
  AND NOT EXISTS (SELECT FROM prepaid.unsettled_plans u WHERE u.service_plan_id = p.service_plan_id)
UNION ALL
SELECT format('record %s pays invoice %s of service plan %s, which is cancelled',
              t.provider_ref, i.invoice_number, p.service_plan_id)
FROM prepaid.service_plans p
JOIN prepaid.invoices i USING (service_plan_id)
JOIN prepaid.transactions t ON t.invoice_id = i.invoice_id AND t.outcome = 'matched'
WHERE p.status = 'Cancelled' AND p.activated_on IS NULL
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.transaction_id = t.transaction_id AND k.kind = 'payment_review')
  AND NOT EXISTS (SELECT FROM prepaid.credit_notes n WHERE n.invoice_id = i.invoice_id);
