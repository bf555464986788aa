-- Step 5: a finance officer is asked to verify that the pre-authorised payment has cleared. The
-- plan goes back to Pending: it now waits for people, and no run waits with it.

-- name: assign
-- Nothing to pay, nothing to verify: an invoice over 0 gets no task.
INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on, due_on)
SELECT 'payment_verification', i.service_plan_id, i.invoice_id, prepaid.team_of('payment_verification'), :as_of,
       -- In parentheses it is asked once, and not for each row.
       (SELECT prepaid.task_due_on(:as_of))
FROM prepaid.invoices i
WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open' AND i.payable > 0
  AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                  AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn')
ORDER BY i.invoice_id;

-- name: hand_over
-- What the term is worth without tax is known now, also where the price contained it.
UPDATE prepaid.service_plans p
SET status = 'Pending', invoiced_at = clock_timestamp(),
    (net_amount, recurring_amount) = (
        SELECT sum(ch.net), sum(ch.recurring_net) FROM prepaid.charges ch
        WHERE ch.service_plan_id = p.service_plan_id)
WHERE p.service_plan_id = ANY (:plans)
  AND p.status = 'Processing'
  AND EXISTS (SELECT FROM prepaid.invoices i WHERE i.service_plan_id = p.service_plan_id
              AND i.status = 'Open' OFFSET 0);
