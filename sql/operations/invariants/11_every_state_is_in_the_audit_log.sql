-- Every plan's and invoice's status is the last one in the audit log.
SELECT format('service plan %s is %s, its last audit entry says %s',
              p.service_plan_id, p.status, coalesce(a.after, 'nothing')) AS finding
FROM prepaid.service_plans p
LEFT JOIN LATERAL (SELECT a.after FROM prepaid.audit_log a
    WHERE a.service_plan_id = p.service_plan_id AND a.entity = 'service_plan'
      AND a.event <> 'service_provisioned'
    ORDER BY a.audit_id DESC LIMIT 1) a ON true
WHERE p.origin = 'pipeline' AND a.after IS DISTINCT FROM p.status
UNION ALL
SELECT format('invoice %s is %s, its last audit entry says %s',
              i.invoice_number, i.status, coalesce(a.after, 'nothing'))
FROM prepaid.invoices i
LEFT JOIN LATERAL (SELECT a.after FROM prepaid.audit_log a
    WHERE a.service_plan_id = i.service_plan_id AND a.entity = 'invoice'
      AND a.entity_id = i.invoice_id AND a.after IS NOT NULL
    ORDER BY a.audit_id DESC LIMIT 1) a ON true
WHERE a.after IS DISTINCT FROM i.status;
