-- A plan's whole story, and what can be done about it.

-- name: find
SELECT service_plan_id FROM prepaid.plan_summaries
WHERE invoice_number = upper(:name) OR CAST(service_plan_id AS text) = :name LIMIT 1;

-- name: one
SELECT * FROM prepaid.plan_summaries WHERE service_plan_id = :plan;

-- name: events
SELECT at, event, actor, what FROM prepaid.plan_events WHERE service_plan_id = :plan ORDER BY at, place, id;

-- name: why
-- As cli/story has it, for those who may not read payments and invoices: of a plan that does not wait.
SELECT p.status, p.origin, p.kind, p.start_date, p.end_date, CAST(NULL AS date) AS activated_on,
       p.invoice_number, p.invoice_status, p.payable = 0 AS nothing_to_pay,
       p.payable || ' ' || p.currency AS payable, CAST(NULL AS text) AS records,
       k.decision, k.decided_by, k.decided_at, k.first_approved_by,
       (SELECT string_agg(h.reason_code, ', ' ORDER BY h.held_at) FROM prepaid.holds h
        WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL) AS holds
FROM prepaid.plan_summaries p
LEFT JOIN LATERAL (
    SELECT t.decision, t.decided_by, t.decided_at, t.first_approved_by FROM prepaid.tasks t
    WHERE t.service_plan_id = p.service_plan_id AND t.kind = 'payment_verification'
      AND t.status <> 'Withdrawn'
    ORDER BY t.task_id DESC LIMIT 1) k ON true
WHERE p.service_plan_id = :plan AND p.status IN ('Active', 'Expired', 'Cancelled');

-- name: done
-- Which run it was, only the audit log says, which is for engineering.
SELECT e.at, e.actor, CAST(NULL AS text) AS run_id
FROM prepaid.plan_events e
JOIN prepaid.plan_summaries p USING (service_plan_id)
WHERE e.service_plan_id = :plan AND e.place = 1
  AND e.event = 'service_plan_' || CASE WHEN p.status IN ('Active', 'Expired') THEN 'active'
                                        ELSE lower(p.status) END
  AND e.what NOT LIKE 'Expired ->%'
ORDER BY e.id DESC LIMIT 1;

-- name: address
SELECT prepaid.set_customer_email(:plan, :address);

-- name: void
SELECT prepaid.void_invoice(:invoice_number, :reissue, :note);

-- name: subscription
SELECT subscription_id FROM prepaid.service_plans WHERE service_plan_id = :plan;
