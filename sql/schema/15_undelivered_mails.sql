-- Support's list: what failed for good, and what may or may not have arrived.
CREATE VIEW prepaid.undelivered_mails AS
SELECT e.email_id, e.status, e.template, e.occasion, e.recipient, e.created_at, e.attempts,
       e.unknown_attempts, e.last_error, e.service_plan_id, c.customer_ref, c.name AS customer_name,
       coalesce(p.plan_name, l.name) AS plan_name, i.invoice_number
FROM prepaid.emails e
LEFT JOIN prepaid.service_plans p USING (service_plan_id)
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.plans l ON l.plan_id = p.plan_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id
    AND CASE WHEN e.invoice_id IS NULL THEN i.status <> 'Void' ELSE i.invoice_id = e.invoice_id END
WHERE e.status IN ('failed', 'unknown');
