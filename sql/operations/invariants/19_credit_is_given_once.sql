-- Every credit is given once: what an invoice was credited is applied to it, and what is left has a refund task.
SELECT format('invoice %s of service plan %s was credited %s, credit notes apply %s to it',
              i.invoice_number, p.service_plan_id, i.credit, coalesce(n.applied, 0)) AS finding
FROM prepaid.invoices i
JOIN prepaid.service_plans p USING (service_plan_id)
LEFT JOIN prepaid.credit_notes n ON n.applied_to_invoice_id = i.invoice_id
WHERE coalesce(n.applied, 0) <> CASE
    WHEN i.status <> 'Void' AND (p.activated_on IS NOT NULL OR p.status = 'Cancelled') THEN i.credit
    -- The term was had: only what was to be paid beside the credit is not collectible.
    WHEN n.applied > 0 AND (p.status = 'Expired' OR EXISTS (
        SELECT FROM prepaid.credit_notes own WHERE own.invoice_id = i.invoice_id)) THEN i.credit
    ELSE 0 END
UNION ALL
SELECT format('credit note %s leaves %s %s to pay back, and no task asks for it',
              n.credit_note_number, n.refund, n.currency)
FROM prepaid.credit_notes n
WHERE n.refund > 0 AND NOT EXISTS (
    SELECT FROM prepaid.tasks k
    WHERE k.credit_note_id = n.credit_note_id AND k.kind = 'payment_refund' AND k.status <> 'Withdrawn')
  -- The payment was taken back: there is nothing to pay back, until it stands again.
  AND NOT EXISTS (SELECT FROM prepaid.invoices i
                  WHERE i.invoice_id = n.invoice_id AND i.status <> 'Paid')
UNION ALL
SELECT format('credit note %s asks to pay back %s %s, %s were', n.credit_note_number, n.refund,
              n.currency, sum(t.amount))
FROM prepaid.credit_notes n
JOIN prepaid.transactions t USING (credit_note_id)
WHERE t.outcome = 'matched'
GROUP BY n.credit_note_id HAVING sum(t.amount) > n.refund
UNION ALL
SELECT format('service plan %s was paid until %s and cut by a change on %s, and nothing is credited',
              p.service_plan_id, p.full_end_date, p.end_date)
FROM prepaid.service_plans p
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Paid'
WHERE p.full_end_date IS NOT NULL AND p.status IN ('Active', 'Expired')
  AND NOT EXISTS (SELECT FROM prepaid.credit_notes n WHERE n.service_plan_id = p.service_plan_id)
  AND EXISTS (SELECT FROM prepaid.unused_credit(p.service_plan_id, p.end_date, i.issued_on));
