-- Every plan that the pipeline activated has exactly one live invoice, and it is paid.
SELECT format('service plan %s is %s with %s live invoices, %s of them paid',
              p.service_plan_id, p.status, count(i.*), count(i.*) FILTER (WHERE i.status = 'Paid')) AS finding
FROM prepaid.service_plans p
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.origin = 'pipeline' AND p.activated_on IS NOT NULL
GROUP BY p.service_plan_id
HAVING count(i.*) <> 1 OR count(i.*) FILTER (WHERE i.status = 'Paid') <> 1
ORDER BY p.service_plan_id;
