-- No plan waits where no list shows it: it is held, a task of its own is open, or the pipeline has its turn.
SELECT format('service plan %s is %s, and %s, but no list shows it', p.service_plan_id, p.status, CASE
           WHEN p.invoiced_at IS NULL THEN 'its price waits for finance'
           WHEN k.decision = 'approved' THEN format('the payment of invoice %s is approved, and no record pays it',
                                                    i.invoice_number)
           ELSE format('invoice %s waits for finance', i.invoice_number) END) AS finding
FROM prepaid.service_plans p
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Open'
LEFT JOIN LATERAL (
    SELECT t.status, t.decision FROM prepaid.tasks t
    WHERE t.invoice_id = i.invoice_id AND t.kind = 'payment_verification' AND t.status <> 'Withdrawn'
    OFFSET 0) k ON true
WHERE p.status IN ('Pending', 'Processing', 'Active', 'Expired')
  AND (p.status IN ('Pending', 'Processing') OR i.invoice_id IS NOT NULL)
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL)
  AND CASE WHEN p.invoiced_at IS NULL
      -- Open without its hold: it would be invoiced all the same, or never.
      THEN EXISTS (SELECT FROM prepaid.tasks t WHERE t.service_plan_id = p.service_plan_id
                   AND t.kind = 'price_concession' AND t.status = 'Open')
      ELSE i.payable > 0 AND k.status IS DISTINCT FROM 'Open'
           AND NOT (k.decision IS NOT DISTINCT FROM 'approved' AND (
               prepaid.payment_stands(i.invoice_id) IS TRUE
               -- What has landed is judged by the next run.
               OR EXISTS (SELECT FROM prepaid.transactions t WHERE t.outcome IS NULL
                          AND (t.invoice_number = i.invoice_number OR t.invoice_id = i.invoice_id)))) END
ORDER BY p.service_plan_id;
