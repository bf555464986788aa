-- Every plan that was cancelled before its activation left no open invoice, no hold and no place in the queue, unless it was credited and the payment was reversed later.
WITH closed AS (
    SELECT p.service_plan_id, i.invoice_number, n.credit_note_id IS NOT NULL AS reversed
    FROM prepaid.service_plans p
    LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Open'
    LEFT JOIN prepaid.credit_notes n ON n.invoice_id = i.invoice_id
    WHERE p.status = 'Cancelled' AND p.activated_on IS NULL
)
SELECT format('service plan %s is cancelled, but its invoice %s is open', service_plan_id,
              invoice_number) AS finding
FROM closed WHERE invoice_number IS NOT NULL AND NOT reversed
UNION ALL
SELECT format('service plan %s is cancelled, but waits in the queue', service_plan_id)
FROM closed JOIN prepaid.unsettled_plans USING (service_plan_id) WHERE NOT reversed
UNION ALL
SELECT format('service plan %s is cancelled, but held (%s)', service_plan_id, h.reason_code)
FROM closed JOIN prepaid.holds h USING (service_plan_id) WHERE h.released_at IS NULL;
