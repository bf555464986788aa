-- Step 9: the provisioning entry, once per plan (partial unique index on the event).
INSERT INTO prepaid.audit_log
    (event, service_plan_id, entity, entity_id, after, detail, actor, run_id, as_of)
SELECT 'service_provisioned', p.service_plan_id, 'service_plan', p.service_plan_id, p.status,
       format('%s from %s to %s', p.kind, p.start_date, p.end_date),
       prepaid.actor(), prepaid.run_id(), :as_of
FROM prepaid.service_plans p
WHERE p.service_plan_id = ANY (:plans)
  AND p.status = 'Active'
  AND NOT EXISTS (SELECT FROM prepaid.audit_log a WHERE a.service_plan_id = p.service_plan_id
                  AND a.event = 'service_provisioned' OFFSET 0);
