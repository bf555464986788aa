-- Step 10: the order to send the confirmation. The job send_emails does the sending: a mail server
-- that is down must not keep a paid plan from going on.
INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient)
SELECT p.service_plan_id, 'activation_confirmation', 'activation', p.email
FROM prepaid.service_plans p
WHERE p.service_plan_id = ANY (:plans)
  AND p.status = 'Active'
ON CONFLICT (service_plan_id, template, occasion) DO NOTHING;
