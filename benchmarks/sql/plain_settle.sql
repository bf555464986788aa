-- What steps 6-11 write, by hand. The provisioning entry and the rest need the plan to be Active.

-- name: pay
-- The plans and their invoices were written in the order of the ended terms, from 1 on.
UPDATE prepaid.invoices i
SET transaction_id = t.transaction_id, status = 'Paid', paid_on = :as_of
FROM prepaid.transactions t
WHERE i.invoice_id BETWEEN :first AND :last
  AND t.invoice_id = i.invoice_id AND t.outcome = 'matched';

-- name: activate
UPDATE prepaid.service_plans
SET status = 'Active', activated_on = :as_of, activated_at = clock_timestamp()
WHERE previous_plan_id BETWEEN :first AND :last AND status = 'Pending';

-- name: note_provisioning
INSERT INTO prepaid.audit_log
    (event, service_plan_id, entity, entity_id, after, detail, actor, run_id, as_of)
SELECT 'service_provisioned', service_plan_id, 'service_plan', service_plan_id, status,
       format('%s from %s to %s', kind, start_date, end_date),
       prepaid.actor(), prepaid.run_id(), :as_of
FROM prepaid.service_plans
WHERE previous_plan_id BETWEEN :first AND :last AND status = 'Active';

-- name: order_mail
INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient)
SELECT service_plan_id, 'activation_confirmation', 'activation', email
FROM prepaid.service_plans
WHERE previous_plan_id BETWEEN :first AND :last AND status = 'Active';

-- name: ask_customer_success
INSERT INTO prepaid.tasks (kind, service_plan_id, assigned_role, opened_on, due_on)
SELECT 'quality_check', service_plan_id, 'customer_success', :as_of, prepaid.task_due_on(:as_of)
FROM prepaid.service_plans
WHERE previous_plan_id BETWEEN :first AND :last AND status = 'Active';

-- name: settle
DELETE FROM prepaid.unsettled_plans
WHERE service_plan_id IN (SELECT service_plan_id FROM prepaid.service_plans
                          WHERE previous_plan_id BETWEEN :first AND :last AND status = 'Active');
