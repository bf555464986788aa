-- Every service plan that was due could be opened: no opening failed without succeeding later.
WITH failed AS MATERIALIZED (
    SELECT DISTINCT ON (entity_id) entity_id AS subscription_id, at, detail
    FROM prepaid.audit_log WHERE event = 'opening_failed'
    ORDER BY entity_id, audit_id DESC
)
SELECT format('subscription %s: %s', s.subscription_ref, failed.detail) AS finding
FROM failed
JOIN prepaid.subscriptions s USING (subscription_id)
WHERE NOT EXISTS (SELECT FROM prepaid.service_plans p
                  JOIN prepaid.audit_log opened USING (service_plan_id)
                  WHERE p.subscription_id = failed.subscription_id
                    AND opened.event = 'service_plan_opened' AND opened.at > failed.at)
ORDER BY s.subscription_ref;
