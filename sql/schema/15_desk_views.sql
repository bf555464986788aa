-- What the pages show beside the two sign-off tables: how much waits, how long it takes, what is
-- parked or held, what was decided, and a plan's whole story.

-- Open tasks per team and kind, for the acting person's own teams (engineering sees all).
CREATE VIEW prepaid.desk_overview AS
SELECT k.assigned_role AS team, k.kind, count(*) AS open, min(k.opened_on) AS oldest,
       count(*) FILTER (WHERE k.due_on < prepaid.today()) AS overdue,
       count(*) FILTER (WHERE k.assigned_to = prepaid.acting_person()) AS mine
FROM prepaid.tasks k
WHERE k.status = 'Open' AND EXISTS (
    SELECT FROM prepaid.team_members m
    WHERE m.person = prepaid.acting_person() AND m.team IN (k.assigned_role, 'engineering'))
GROUP BY k.assigned_role, k.kind;

-- Hours from a task's opening to its decision (of two: the second), by the month of the decision.
CREATE VIEW prepaid.sign_off_times AS
SELECT date_trunc('month', prepaid.business_date(k.decided_at))::date AS month, k.kind,
       count(*) AS decided,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY k.decided_at - k.opened_at) AS median,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY k.decided_at - k.opened_at) AS p90
FROM prepaid.tasks k
WHERE k.decided_at IS NOT NULL
GROUP BY 1, 2;

-- Parked payments that finance is asked about: the record, why it is parked, which open invoices it may
-- be meant for, and what can be done.
CREATE VIEW prepaid.parked_payments AS
SELECT k.task_id, k.status, k.opened_on, k.due_on, k.assigned_to, t.transaction_id, t.provider,
       t.provider_ref, t.invoice_number AS record_invoice_number, t.customer_ref, t.amount, t.currency,
       t.status AS record_status, t.occurred_at, t.outcome, t.outcome_reason AS reason,
       k.service_plan_id, coalesce(s.suggestions, '[]') AS suggestions,
       CASE WHEN t.outcome = 'parked' AND t.status = 'Success'
            THEN 'assign it to the open invoice that it pays, or pay it back; then decide the task'
            ELSE 'clear it up with the provider; then decide the task' END AS what_to_do,
       k.decision, k.note, k.decided_by, k.decided_at
FROM prepaid.tasks k
JOIN prepaid.transactions t USING (transaction_id)
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('invoice_number', p.invoice_number,
               'customer_ref', p.customer_ref, 'customer_name', p.customer_name,
               'because', p.because) ORDER BY p.invoice_number) AS suggestions
    FROM prepaid.payment_suggestions p WHERE p.transaction_id = t.transaction_id OFFSET 0) s ON true
WHERE k.kind = 'payment_review' AND k.status <> 'Withdrawn';

-- Plans that wait for a person to put something right. The text says what can be done.
CREATE VIEW prepaid.held_plans AS
SELECT h.hold_id, h.service_plan_id, p.status, c.customer_ref, c.name AS customer_name, l.name AS plan_name,
       i.invoice_number, h.reason_code, h.text, h.held_at,
       CASE WHEN h.reason_code = 'payment_rejected' THEN 'finance'
            ELSE 'finance, customer_success, engineering' END AS released_by_team
FROM prepaid.holds h
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.plans l ON l.plan_id = p.plan_id
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE h.released_at IS NULL;

-- Every sign-off that was ever made, for the acting person's own teams (engineering sees all).
CREATE VIEW prepaid.decisions AS
SELECT s.sign_off_id, s.task_id, k.kind, k.assigned_role AS team, k.service_plan_id, c.customer_ref,
       i.invoice_number, i.currency, i.payable, s.decision, s.note, s.decided_by, s.decided_at
FROM prepaid.sign_offs s
JOIN prepaid.tasks k USING (task_id)
LEFT JOIN prepaid.service_plans p ON p.service_plan_id = k.service_plan_id
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.invoice_id = k.invoice_id
WHERE EXISTS (SELECT FROM prepaid.team_members m
              WHERE m.person = prepaid.acting_person() AND m.team IN (k.assigned_role, 'engineering'));

-- Everything about one plan: ask for a service_plan_id. The audit log is the thread; records,
-- sign-offs, holds and mails add their own words. place and id order what happened at one moment.
CREATE VIEW prepaid.plan_events AS
SELECT a.service_plan_id, a.at, a.event, a.actor,
       concat_ws(' ', a.before || ' ->',
           CASE a.event WHEN 'hold_released' THEN 'released' ELSE a.after END,
           '(' || CASE a.event WHEN 'hold_released' THEN h.note ELSE a.detail END || ')',
           CASE a.event WHEN 'hold_placed' THEN h.text END, q.note, r.assigned_note) AS what,
       1 AS place, a.audit_id AS id
FROM prepaid.audit_log a
LEFT JOIN prepaid.holds h ON a.entity = 'hold' AND h.hold_id = a.entity_id
LEFT JOIN prepaid.requests q ON a.entity = 'request' AND q.request_id = a.entity_id
LEFT JOIN prepaid.transactions r ON a.event = 'transaction_assigned' AND r.transaction_id = a.entity_id
UNION ALL
SELECT k.service_plan_id, k.opened_at, 'task_opened', 'pipeline',
       format('task %s: %s for %s, due on %s', k.task_id, k.kind, k.assigned_role, k.due_on), 2, k.task_id
FROM prepaid.tasks k
UNION ALL
SELECT k.service_plan_id, s.decided_at, 'sign_off', s.decided_by,
       concat_ws(' ', format('task %s: %s', s.task_id, s.decision),
           CASE WHEN s.note IS NOT NULL THEN '(' || s.note || ')' END), 3, s.sign_off_id
FROM prepaid.sign_offs s JOIN prepaid.tasks k USING (task_id)
UNION ALL
SELECT i.service_plan_id, t.received_at, 'payment_record', coalesce(t.provider, 'unknown provider'),
       concat_ws(' ', t.provider_ref, t.status, t.amount, t.currency, 'for', t.invoice_number), 4,
       t.transaction_id
FROM prepaid.transactions t JOIN prepaid.invoices i ON i.invoice_number = t.invoice_number
UNION ALL
SELECT e.service_plan_id, e.created_at, 'email_ordered', 'pipeline',
       format('%s to %s: %s', e.template, e.recipient, e.status), 5, e.email_id
FROM prepaid.emails e
UNION ALL
SELECT k.service_plan_id, a.assigned_at, 'task_assigned', a.assigned_by,
       concat_ws(' ', format('task %s: %s', a.task_id, coalesce('to ' || a.assigned_to, 'to the team')),
           CASE WHEN a.note IS NOT NULL THEN '(' || a.note || ')' END), 6, a.assignment_id
FROM prepaid.task_assignments a JOIN prepaid.tasks k USING (task_id);

-- What stands at the head of that story.
CREATE VIEW prepaid.plan_summaries AS
SELECT p.service_plan_id, p.origin, p.kind, p.status, s.subscription_ref, c.customer_ref,
       c.name AS customer_name, l.plan_code, l.name AS plan_name, p.start_date, p.end_date, p.currency,
       p.net_amount, p.previous_plan_id, i.invoice_number, i.status AS invoice_status, i.net, i.tax,
       i.total, i.payable
FROM prepaid.service_plans p
JOIN prepaid.subscriptions s USING (subscription_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
JOIN prepaid.plans l ON l.plan_id = p.plan_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void';

-- Asks another person of the same team, or the whole team again (to_person null), to do open tasks;
-- for the acting person, who is in that team. All or nothing. Returns how many changed hands.
CREATE FUNCTION prepaid.reassign_tasks(task_ids bigint[], to_person text, why text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    reassigned integer;
    refused record;
BEGIN
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id FOR UPDATE;
    SELECT asked.task_id, reason INTO refused
    FROM unnest(task_ids) asked (task_id)
    LEFT JOIN LATERAL (SELECT * FROM prepaid.tasks WHERE task_id = asked.task_id OFFSET 0) k ON true
    CROSS JOIN LATERAL (SELECT CASE
        WHEN k.task_id IS NULL THEN 'there is no such task'
        WHEN NOT prepaid.is_in_team(acting_person(), k.assigned_role)
            THEN format('it belongs to %s, and %s is not in that team', k.assigned_role, acting_person())
        WHEN k.status <> 'Open' THEN format('it is %s', k.status)
        WHEN to_person IS NOT NULL AND NOT prepaid.is_in_team(to_person, k.assigned_role)
            THEN format('%s is not in %s', to_person, k.assigned_role)
        ELSE (SELECT format('%s %s: somebody else decides', to_person, e.what) FROM prepaid.four_eyes e
              WHERE e.task_id = k.task_id AND e.person = to_person LIMIT 1)
        END AS reason) judged
    WHERE reason IS NOT NULL ORDER BY asked.task_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task % cannot be assigned: %', refused.task_id, refused.reason;
    END IF;
    WITH moved AS (
        UPDATE prepaid.tasks k SET assigned_to = to_person
        WHERE k.task_id = ANY (task_ids) AND k.assigned_to IS DISTINCT FROM to_person
        RETURNING k.task_id
    )
    INSERT INTO prepaid.task_assignments (task_id, assigned_to, note, assigned_by)
    SELECT moved.task_id, to_person, why, acting_person() FROM moved ORDER BY moved.task_id;
    GET DIAGNOSTICS reassigned = ROW_COUNT;
    RETURN reassigned;
END $$;
