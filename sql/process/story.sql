-- Everything about one plan.

-- name: find
-- A plan is named by its id or by the number of an invoice of it.
SELECT p.service_plan_id
FROM prepaid.service_plans p
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.invoice_number = :name
WHERE CAST(p.service_plan_id AS text) = :name OR i.invoice_id IS NOT NULL;

-- name: plan
SELECT p.service_plan_id, p.origin, p.kind, p.status, s.subscription_ref, c.customer_ref,
       l.plan_code, p.start_date, p.end_date, p.currency, p.net_amount, p.previous_plan_id,
       i.invoice_number, i.status AS invoice_status, i.net, i.tax, i.total
FROM prepaid.service_plans p
JOIN prepaid.subscriptions s USING (subscription_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
JOIN prepaid.plans l ON l.plan_id = p.plan_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.service_plan_id = :plan;

-- name: events
SELECT at, event, actor, what FROM prepaid.plan_events
WHERE service_plan_id = :plan ORDER BY at, place, id;

-- name: why
-- What the why is drawn from, in addition to what is done. Finance reads it, too (so it is without the
-- audit log). Amounts are texts: they are only said.
SELECT p.status, p.origin, p.kind, p.start_date, p.end_date, p.activated_on, p.invoiced_at,
       i.invoice_number, i.status AS invoice_status, i.payable = 0 AS nothing_to_pay,
       i.payable || ' ' || i.currency AS payable,
       (SELECT string_agg(concat_ws(' ', coalesce(t.provider, 'unknown provider'), t.provider_ref,
                   'over', t.amount, t.currency,
                   CASE WHEN prepaid.is_believable(t.occurred_at)
                        THEN 'of ' || prepaid.said_time(t.occurred_at, t.as_delivered) END,
                   CASE WHEN t.assigned_by IS NOT NULL THEN '(assigned by ' || t.assigned_by || ')' END),
                   ' and ' ORDER BY t.transaction_id)
        FROM prepaid.transactions t WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched'
          AND t.credit_note_id IS NULL) AS records,
       k.decision, k.decided_by, k.decided_at, k.first_approved_by,
       (SELECT string_agg(h.reason_code, ', ' ORDER BY h.held_at) FROM prepaid.holds h
        WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL) AS holds
FROM prepaid.service_plans p
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
LEFT JOIN prepaid.tasks k ON k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
    AND k.status <> 'Withdrawn'
WHERE p.service_plan_id = :plan;

-- name: done
-- The transition that made it what it is now; what was activated stays so when it expires,
-- and when that is taken back.
SELECT a.at, a.actor, a.run_id
FROM prepaid.audit_log a
JOIN prepaid.service_plans p USING (service_plan_id)
WHERE a.service_plan_id = :plan
  AND a.event = 'service_plan_' || CASE WHEN p.status IN ('Active', 'Expired') THEN 'active'
                                        ELSE lower(p.status) END
  AND a.before IS DISTINCT FROM 'Expired'
ORDER BY a.audit_id DESC LIMIT 1;
