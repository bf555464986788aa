-- Step 7: Open -> Paid. A trigger refuses it without the matched record and the approval.

-- name: lock_approvals
-- A rejection at this very moment is waited for here, and the next statement sees it: the plan is
-- then not paid, instead of failing this step. People's decisions lock tasks in the same order.
SELECT task_id FROM prepaid.tasks
WHERE service_plan_id = ANY (:plans) AND kind = 'payment_verification' AND decision = 'approved'
ORDER BY task_id FOR SHARE;

-- name: mark_paid
UPDATE prepaid.invoices i
SET status = 'Paid', paid_on = :as_of
WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open'
  AND (i.payable = 0 OR i.transaction_id IS NOT NULL AND EXISTS (
      SELECT FROM prepaid.tasks k
      WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
        AND k.status <> 'Withdrawn' AND k.decision = 'approved' OFFSET 0));
