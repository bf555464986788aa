-- Which plans wait for the pipeline. Claims and sensors read the same two views, so that a sensor
-- never asks for a run that would find nothing, and never misses one.

-- Steps 1-5. Whether the plan is due (lead days before its start) depends on the business date.
CREATE VIEW prepaid.ready_to_invoice AS
SELECT p.service_plan_id, p.planned_start, p.term_days, p.batch_id
FROM prepaid.service_plans p
WHERE p.invoiced_at IS NULL AND p.status IN ('Pending', 'Processing')
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = p.batch_id AND b.leased_until > clock_timestamp())
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL);

-- Steps 6-11: invoiced, the record matched and the payment approved (or nothing to pay).
CREATE VIEW prepaid.ready_to_settle AS
SELECT p.service_plan_id, p.batch_id
FROM prepaid.service_plans p
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.invoiced_at IS NOT NULL AND p.settled_at IS NULL AND p.status IN ('Pending', 'Active')
  AND (i.status = 'Paid' OR i.payable = 0 OR (
      EXISTS (SELECT FROM prepaid.transactions t
              WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched')
      AND EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
                    AND k.status <> 'Withdrawn' AND k.decision = 'approved')))
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = p.batch_id AND b.leased_until > clock_timestamp())
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL);
