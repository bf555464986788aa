-- Takes back what was done for a business date that has not come (:day; :today is the real one).
-- What people decided and what was paid stays.

-- name: expired
-- Terms that expired for that day and run on.
UPDATE prepaid.service_plans p SET status = 'Active'
WHERE p.status = 'Expired' AND p.end_date > :today
  AND :day = (SELECT a.as_of FROM prepaid.audit_log a
              WHERE a.service_plan_id = p.service_plan_id AND a.event = 'service_plan_expired'
              ORDER BY a.audit_id DESC LIMIT 1);

-- name: cancelled
-- Plans that were cancelled for that day because nobody had paid. Not again what has another plan in
-- its place, whose subscription ends, or which was a change of plan: that was taken back with it.
SELECT p.service_plan_id,
       p.kind <> 'change'
           AND (s.cancelled_on IS NULL OR s.cancelled_on > p.planned_start)
           AND NOT EXISTS (
               SELECT FROM prepaid.service_plans other
               WHERE other.subscription_id = p.subscription_id AND other.status <> 'Cancelled'
                 AND other.previous_plan_id IS NOT DISTINCT FROM p.previous_plan_id) AS again
FROM prepaid.service_plans p
JOIN prepaid.subscriptions s USING (subscription_id)
WHERE p.status = 'Cancelled' AND p.activated_on IS NULL
  AND p.service_plan_id IN (SELECT service_plan_id FROM prepaid.audit_log
                            WHERE event = 'payment_not_received' AND as_of = :day)
  AND :day = (SELECT a.as_of FROM prepaid.audit_log a
              WHERE a.service_plan_id = p.service_plan_id AND a.event = 'service_plan_cancelled'
              ORDER BY a.audit_id DESC LIMIT 1)
ORDER BY p.service_plan_id
FOR NO KEY UPDATE OF p;

-- name: wait_again
-- As after a reissue: the next run takes what the subscription has then, and issues a new invoice. An
-- order keeps the price that was agreed.
UPDATE prepaid.service_plans
SET status = 'Pending', invoiced_at = NULL, retrieved_at = NULL,
    price = CASE WHEN opened_on IS NULL THEN price END
WHERE service_plan_id = ANY (:plans);

-- name: forget_charges
DELETE FROM prepaid.charges WHERE service_plan_id = ANY (:plans);

-- name: queue
INSERT INTO prepaid.unsettled_plans (service_plan_id)
SELECT unnest(CAST(:plans AS bigint[])) ON CONFLICT DO NOTHING;

-- name: drop_mails
-- Those that have not left: that the plan is cancelled, and reminders whose day has not come.
UPDATE prepaid.emails e
SET status = 'dropped', last_error = 'It was ordered for a business date that has not come.'
WHERE e.status = 'pending'
  AND (e.template = 'unpaid_cancellation' AND e.service_plan_id = ANY (:plans)
    OR e.template = 'payment_reminder'
       AND EXISTS (
           SELECT FROM prepaid.invoices i JOIN prepaid.service_plans p USING (service_plan_id)
           WHERE i.invoice_id = e.invoice_id
             AND prepaid.due_on(i.issued_on, p.planned_start)
                 + CAST(split_part(e.occasion, ' day ', 2) AS integer) > :today));

-- name: told
-- Customers who have read, or may have, what is not true.
SELECT e.template, i.invoice_number, e.recipient, e.status
FROM prepaid.emails e
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.service_plans p ON p.service_plan_id = i.service_plan_id
WHERE e.status IN ('sending', 'sent', 'unknown')
  AND (e.template = 'unpaid_cancellation' AND e.service_plan_id = ANY (:plans)
       AND EXISTS (SELECT FROM prepaid.audit_log a
                   WHERE a.service_plan_id = e.service_plan_id AND a.entity_id = e.invoice_id
                     AND a.event = 'payment_not_received' AND a.as_of = :day)
    OR e.template = 'payment_reminder'
       AND prepaid.due_on(i.issued_on, p.planned_start)
           + CAST(split_part(e.occasion, ' day ', 2) AS integer) > :today)
ORDER BY e.email_id;
