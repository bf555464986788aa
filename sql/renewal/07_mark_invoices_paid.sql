-- Step 7: Open -> Paid. A trigger refuses it without the matched record and the approval.
UPDATE prepaid.invoices i
SET status = 'Paid', paid_on = :as_of
FROM prepaid.service_plans p
WHERE p.service_plan_id = ANY (:plans)
  AND i.service_plan_id = p.service_plan_id AND i.status = 'Open'
  AND (i.total = 0 OR i.transaction_id IS NOT NULL AND EXISTS (
      SELECT FROM prepaid.tasks k
      WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
        AND k.status <> 'Withdrawn' AND k.decision = 'approved'));
