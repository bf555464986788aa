-- Customers who have not paid are reminded on the days that the settings name; after the last day to
-- pay the plan is cancelled and its invoice with it. A payment that is on its way puts that off for
-- :clearing_days. Each transaction first takes the lock of match_payments (its part
-- one_matcher_at_a_time): a record is judged before it or after it.

-- name: silent_sources
-- Providers from which no record has come for the days before the business date: what was paid
-- meanwhile is not known. A record is of the day that it says, or that on which it landed if that is
-- earlier or what it says is no day of this business. Usual is who delivered in the last 90 days on
-- more than one day, or whoever there is. Records of later days tell nothing about this one.
WITH delivered AS (
    SELECT coalesce(t.provider, 'unknown') AS provider,
           CAST(least(CASE WHEN t.occurred_at >= '2000-01-01' THEN t.occurred_at END, t.received_at)
                AT TIME ZONE i.timezone AS date) AS day
    FROM prepaid.transactions t CROSS JOIN prepaid.installation i
    WHERE t.received_at >= '2000-01-01'
    GROUP BY 1, 2
), usual AS (
    SELECT provider, max(day) AS last_on, count(*) > 1 AS more_than_once
    FROM delivered WHERE day BETWEEN CAST(:as_of AS date) - 90 AND CAST(:as_of AS date)
    GROUP BY provider
)
SELECT provider, last_on FROM usual
WHERE last_on < CAST(:as_of AS date) - CAST(:payments_expected_days AS integer)
  AND (more_than_once OR NOT EXISTS (SELECT FROM usual WHERE more_than_once))
UNION ALL
-- For longer than that nothing has come from anybody.
SELECT (SELECT provider FROM delivered WHERE day <= CAST(:as_of AS date) ORDER BY day DESC LIMIT 1),
       (SELECT max(day) FROM delivered WHERE day <= CAST(:as_of AS date))
WHERE NOT EXISTS (SELECT FROM usual)
ORDER BY last_on, provider;

-- name: remind
-- One mail per invoice and run, for the latest day that has come. Days that are over by then, or
-- that a run for an earlier date would find, are never made up for.
INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient, invoice_id)
SELECT u.service_plan_id, 'payment_reminder', format('%s day %s', u.invoice_number, latest.day),
       u.email, u.invoice_id
FROM prepaid.unpaid_invoices u
CROSS JOIN LATERAL (
    SELECT max(day) AS day FROM unnest(CAST(:reminder_days AS integer[])) day
    WHERE u.due_on + day <= :as_of) latest
WHERE latest.day IS NOT NULL AND u.email IS NOT NULL
  AND coalesce(u.clearing_since + CAST(:clearing_days AS integer) < :as_of, true)
  AND coalesce(prepaid.last_day_to_pay(u.due_on, CAST(:payment_days AS integer), u.running_until) >= :as_of, true)
  AND NOT EXISTS (
      SELECT FROM prepaid.emails e
      WHERE e.service_plan_id = u.service_plan_id AND e.template = 'payment_reminder'
        AND e.invoice_id = u.invoice_id
        AND CAST(split_part(e.occasion, ' day ', 2) AS integer) >= latest.day OFFSET 0)
ORDER BY u.invoice_id LIMIT :limit
ON CONFLICT (service_plan_id, template, occasion) DO NOTHING;

-- name: lock_overdue
-- What somebody else is changing at this moment is left to the next run.
WITH overdue AS (
    SELECT p.service_plan_id
    FROM prepaid.unpaid_invoices u
    JOIN prepaid.service_plans p USING (service_plan_id)
    JOIN prepaid.invoices i ON i.invoice_id = u.invoice_id
    WHERE prepaid.last_day_to_pay(u.due_on, CAST(:payment_days AS integer), u.running_until) < :as_of
      AND coalesce(u.clearing_since + CAST(:clearing_days AS integer) < :as_of, true)
    ORDER BY p.service_plan_id LIMIT :limit
    FOR NO KEY UPDATE OF p, i SKIP LOCKED
)
SELECT count(*) AS number, CAST(coalesce(array_agg(service_plan_id), '{}') AS text) AS plans
FROM overdue;

-- name: overdue_plans_left
-- What was passed over because somebody had locked it: here that is waited for.
SELECT count(*) FROM (
    SELECT FROM prepaid.unpaid_invoices u
    JOIN prepaid.service_plans p USING (service_plan_id)
    JOIN prepaid.invoices i ON i.invoice_id = u.invoice_id
    WHERE prepaid.last_day_to_pay(u.due_on, CAST(:payment_days AS integer), u.running_until) < :as_of
    ORDER BY p.service_plan_id LIMIT 1
    FOR NO KEY UPDATE OF p, i) passed_over;

-- name: lock_verifications
-- A decision at this very moment is waited for, and the next statement sees it. People's decisions
-- lock tasks in the same order.
SELECT task_id FROM prepaid.tasks
WHERE service_plan_id = ANY (CAST(:plans AS bigint[])) AND kind = 'payment_verification'
  AND status <> 'Withdrawn'
ORDER BY task_id FOR UPDATE;

-- name: tell
-- Notes and tells whose last day to pay is over by what is known now; the plans that are to be cancelled.
WITH overdue AS MATERIALIZED (
    SELECT u.*, prepaid.last_day_to_pay(u.due_on, CAST(:payment_days AS integer), u.running_until) AS last_day
    FROM unnest(CAST(:plans AS bigint[])) locked (service_plan_id)
    CROSS JOIN LATERAL (SELECT * FROM prepaid.unpaid_invoices
                        WHERE service_plan_id = locked.service_plan_id OFFSET 0) u
    WHERE prepaid.last_day_to_pay(u.due_on, CAST(:payment_days AS integer), u.running_until) < :as_of
      AND coalesce(u.clearing_since + CAST(:clearing_days AS integer) < :as_of, true)
), noted AS (
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, detail, actor, run_id, as_of)
    SELECT 'payment_not_received', service_plan_id, 'invoice', invoice_id, format(
        'Invoice %s was due on %s and could be paid until %s: the plan is cancelled',
        invoice_number, due_on, last_day), prepaid.actor(), prepaid.run_id(), :as_of
    FROM overdue ORDER BY invoice_id
), told AS (
    INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient, invoice_id)
    SELECT service_plan_id, 'unpaid_cancellation', invoice_number, email, invoice_id
    FROM overdue WHERE email IS NOT NULL ORDER BY invoice_id
    ON CONFLICT (service_plan_id, template, occasion) DO NOTHING
)
SELECT CAST(coalesce(array_agg(service_plan_id ORDER BY service_plan_id), '{}') AS text) FROM overdue;

-- name: close
SELECT prepaid.close_waiting_plans(CAST(:plans AS bigint[]));

-- name: cancel
UPDATE prepaid.service_plans SET status = 'Cancelled'
WHERE service_plan_id = ANY (CAST(:plans AS bigint[]));
