-- Every open invoice with something to pay has a task by which finance verifies its payment, also after a payment was reversed, unless its plan is cancelled.
SELECT format('invoice %s of service plan %s is open, and no task asks finance to verify its payment',
              i.invoice_number, p.service_plan_id) AS finding
FROM prepaid.invoices i
JOIN prepaid.service_plans p USING (service_plan_id)
WHERE i.status = 'Open' AND i.payable > 0
  -- Between steps 4 and 5 the plan is Processing.
  AND p.status IN ('Pending', 'Active', 'Expired')
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
                    AND k.status <> 'Withdrawn')
ORDER BY i.invoice_id;
