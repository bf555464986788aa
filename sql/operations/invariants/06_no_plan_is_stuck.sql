-- No plan is stuck: what was claimed is still leased, what is Processing is claimed, held or waiting for its turn.
SELECT format('service plan %s (%s) belongs to batch %s, whose lease ended at %s; the next run takes it up',
              p.service_plan_id, p.status, b.batch_id, b.leased_until) AS finding
FROM prepaid.unsettled_plans u
JOIN prepaid.batches b USING (batch_id)
JOIN prepaid.service_plans p USING (service_plan_id)
WHERE b.leased_until < clock_timestamp()
  -- What a batch has invoiced waits for people, and not for the batch.
  AND (b.finished_at IS NULL AND (b.queue = 'settle_renewals' OR p.invoiced_at IS NULL)
       OR p.status = 'Processing')
ORDER BY p.service_plan_id;
