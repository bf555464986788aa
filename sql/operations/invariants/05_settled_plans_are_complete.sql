-- Every settled plan has one provisioning entry, one order to send the confirmation and one quality check.
SELECT format('service plan %s: %s provisioning entries, %s confirmations, %s quality checks',
              p.service_plan_id, a.n, e.n, k.n) AS finding
FROM prepaid.service_plans p
CROSS JOIN LATERAL (SELECT count(*) AS n FROM prepaid.audit_log a
    WHERE a.service_plan_id = p.service_plan_id AND a.event = 'service_provisioned') a
CROSS JOIN LATERAL (SELECT count(*) AS n FROM prepaid.emails e
    WHERE e.service_plan_id = p.service_plan_id AND e.template = 'activation_confirmation') e
CROSS JOIN LATERAL (SELECT count(*) AS n FROM prepaid.tasks k
    WHERE k.service_plan_id = p.service_plan_id AND k.kind = 'quality_check') k
WHERE p.status IN ('Active', 'Expired')
  AND EXISTS (SELECT FROM prepaid.invoices i
              WHERE i.service_plan_id = p.service_plan_id AND i.status = 'Paid')
  AND NOT EXISTS (SELECT FROM prepaid.unsettled_plans u WHERE u.service_plan_id = p.service_plan_id)
  AND (a.n, e.n, k.n) <> (1, 1, 1)
ORDER BY p.service_plan_id;
