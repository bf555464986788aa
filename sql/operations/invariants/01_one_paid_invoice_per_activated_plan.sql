-- Every plan that the pipeline activated has exactly one live invoice, and it is paid, or its payment was reversed and the plan is held or cancelled.
SELECT format('service plan %s is %s with %s live invoices, %s of them paid',
              p.service_plan_id, p.status, count(i.*), count(i.*) FILTER (WHERE i.status = 'Paid')) AS finding
FROM prepaid.service_plans p
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.origin = 'pipeline' AND p.activated_on IS NOT NULL
GROUP BY p.service_plan_id
HAVING (count(i.*) <> 1 OR count(i.*) FILTER (WHERE i.status = 'Paid') <> 1)
   AND NOT (count(i.*) <= 1 AND p.status = 'Cancelled')
   -- Its payment was taken back and finance has given it up.
   AND NOT (count(i.*) = 0 AND p.status = 'Expired')
   -- Paid again it waits for finance and for its turn, with the hold released.
   AND NOT (count(i.*) = 1
       AND EXISTS (SELECT FROM prepaid.unsettled_plans u WHERE u.service_plan_id = p.service_plan_id)
       AND (EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = p.service_plan_id
                    AND h.reason_code = 'payment_reversed' AND h.released_at IS NULL)
            OR EXISTS (SELECT FROM prepaid.transactions t
                       WHERE t.invoice_id = min(i.invoice_id) AND t.outcome = 'matched')))
ORDER BY p.service_plan_id;
