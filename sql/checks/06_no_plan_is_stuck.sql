-- No plan is stuck: what was claimed is still leased, what is Processing is claimed, held or waiting for its turn.
SELECT format('service plan %s (%s) belongs to batch %s, whose lease ended at %s; the next run takes it up',
              p.service_plan_id, p.status, b.batch_id, b.leased_until) AS finding
FROM prepaid.service_plans p
JOIN prepaid.batches b USING (batch_id)
WHERE b.leased_until < clock_timestamp()
ORDER BY p.service_plan_id;
