-- Invoices for finance: what is open and since when, voiding and reissuing.

-- name: list
-- Due on the later of issue and term start. received: what providers' records say has come for it,
-- whatever its outcome, and what a person has assigned to it.
SELECT i.invoice_number, c.customer_ref, c.name, i.status, i.issued_on, due.due_on,
       CASE WHEN i.status = 'Open' THEN greatest(0, CAST(:as_of AS date) - due.due_on) END AS days_overdue,
       i.currency, i.total, i.credit, i.payable, r.received, h.reasons AS held
FROM prepaid.invoices i
JOIN prepaid.customers c USING (customer_id)
JOIN prepaid.service_plans p USING (service_plan_id)
CROSS JOIN LATERAL (SELECT prepaid.due_on(i.issued_on, p.planned_start) AS due_on) due
CROSS JOIN LATERAL (
    SELECT coalesce(sum(prepaid.amount_moved(t.status, t.amount)), 0) AS received FROM prepaid.transactions t
    WHERE (t.invoice_id = i.invoice_id
           OR t.invoice_id IS NULL AND t.invoice_number = i.invoice_number)
      AND t.status = 'Success' AND t.currency = i.currency
      AND t.outcome IS DISTINCT FROM 'superseded') r
CROSS JOIN LATERAL (
    SELECT string_agg(reason_code, ', ' ORDER BY reason_code) AS reasons FROM prepaid.holds h
    WHERE h.service_plan_id = i.service_plan_id AND h.released_at IS NULL) h
WHERE CAST(:status AS text) IS NULL OR i.status = :status
ORDER BY due.due_on, i.invoice_number;

-- name: void
SELECT prepaid.void_invoice(:number, :reissue, :note) AS service_plan_id;
