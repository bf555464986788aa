-- What the pages show beside the sign-off tables (how much waits, how long it takes, what was decided, a
-- plan's whole story), and what their forms call beside decide_tasks.

-- Open tasks per team and kind, for the acting person's own teams (some see all).
CREATE VIEW prepaid.desk_overview AS
SELECT k.assigned_role AS team, k.kind, count(*) AS open, min(k.opened_on) AS oldest,
       count(*) FILTER (WHERE k.due_on < (SELECT prepaid.today())) AS overdue,
       count(*) FILTER (WHERE k.assigned_to = prepaid.acting_person()) AS mine
FROM prepaid.tasks k
WHERE k.status = 'Open' AND EXISTS (
    SELECT FROM prepaid.team_members m
    WHERE m.person = prepaid.acting_person()
      AND (m.team = k.assigned_role OR 'see all tasks' = ANY (m.may)))
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

-- Every sign-off that was ever made, for the acting person's own teams (some see all).
CREATE VIEW prepaid.decisions AS
SELECT s.sign_off_id, s.task_id, k.kind, k.assigned_role AS team, k.service_plan_id, c.customer_ref,
       i.invoice_number, i.currency, i.payable, s.decision, s.note, s.decided_by, s.decided_at
FROM prepaid.sign_offs s
JOIN prepaid.tasks k USING (task_id)
LEFT JOIN prepaid.service_plans p ON p.service_plan_id = k.service_plan_id
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.invoice_id = k.invoice_id
WHERE EXISTS (SELECT FROM prepaid.team_members m
              WHERE m.person = prepaid.acting_person()
                AND (m.team = k.assigned_role OR 'see all tasks' = ANY (m.may)));

-- A page of them, the latest first. The view would join all of them before it shows any: the planner does
-- not look through a barrier (91_rights.sql), and a function that asks by itself needs none.
CREATE FUNCTION prepaid.latest_decisions(before bigint, only_decision text, search text, rows integer)
RETURNS SETOF prepaid.decisions
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    WITH own AS MATERIALIZED (
        SELECT t.team FROM prepaid.teams t
        WHERE EXISTS (SELECT FROM prepaid.team_members m
                      WHERE m.person = prepaid.acting_person()
                        AND (m.team = t.team OR 'see all tasks' = ANY (m.may)))
    )
    SELECT s.sign_off_id, s.task_id, k.kind, k.assigned_role, k.service_plan_id, c.customer_ref,
           i.invoice_number, i.currency, i.payable, s.decision, s.note, s.decided_by, s.decided_at
    FROM prepaid.sign_offs s
    JOIN prepaid.tasks k USING (task_id)
    LEFT JOIN prepaid.service_plans p ON p.service_plan_id = k.service_plan_id
    LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
    LEFT JOIN prepaid.invoices i ON i.invoice_id = k.invoice_id
    WHERE s.sign_off_id < coalesce(before, 9223372036854775807)
      AND (only_decision IS NULL OR s.decision = only_decision)
      AND k.assigned_role IN (SELECT own.team FROM own)
      AND (search IS NULL OR position(lower(search) IN lower(
            concat_ws(' ', i.invoice_number, c.customer_ref, s.decided_by, s.note))) > 0)
    ORDER BY s.sign_off_id DESC LIMIT rows
$$;

-- Everything about one plan: ask for a service_plan_id. The audit log is the thread; records,
-- sign-offs, holds and mails add their own words. place and id order what happened at one moment.
-- Without what finance wrote, and without payment records, for who may not read those: who did what and
-- when is there all the same.
CREATE VIEW prepaid.plan_events AS
WITH reader AS (SELECT prepaid.reads_about_money() AS reads_about_money)
SELECT a.service_plan_id, a.at, a.event, a.actor,
       concat_ws(' ', a.before || ' ->',
           CASE a.event WHEN 'hold_released' THEN 'released' ELSE a.after END,
           '(' || CASE a.event WHEN 'hold_released' THEN CASE WHEN own.hold THEN h.note END
                               ELSE a.detail END || ')',
           CASE WHEN a.event = 'hold_placed' AND own.hold THEN h.text END,
           CASE WHEN own.request THEN q.note END,
           CASE WHEN reader.reads_about_money THEN r.assigned_note END) AS what,
       1 AS place, a.audit_id AS id
FROM reader CROSS JOIN prepaid.audit_log a
LEFT JOIN prepaid.holds h ON a.entity = 'hold' AND h.hold_id = a.entity_id
LEFT JOIN prepaid.hold_reasons o USING (reason_code)
LEFT JOIN prepaid.requests q ON a.entity = 'request' AND q.request_id = a.entity_id
LEFT JOIN prepaid.transactions r ON a.event = 'transaction_assigned' AND r.transaction_id = a.entity_id
-- Both teams ask for cancellations and changes: of a note it matters whose it is.
CROSS JOIN LATERAL (
    SELECT reader.reads_about_money OR NOT o.about_money AS hold,
           reader.reads_about_money OR EXISTS (
               SELECT FROM prepaid.teams t JOIN pg_roles w ON w.rolname = q.asked_by
               WHERE pg_has_role(w.oid, t.team::name, 'MEMBER')
                 AND pg_has_role(current_user, t.team::name, 'USAGE')) AS request) own
UNION ALL
SELECT k.service_plan_id, k.opened_at, 'task_opened', 'pipeline',
       format('task %s: %s for %s, due on %s', k.task_id, k.kind, k.assigned_role, k.due_on), 2, k.task_id
FROM prepaid.tasks k
UNION ALL
SELECT k.service_plan_id, s.decided_at, 'sign_off', s.decided_by,
       concat_ws(' ', format('task %s: %s', s.task_id, s.decision),
           CASE WHEN s.note IS NOT NULL AND (reader.reads_about_money OR k.assigned_role <> 'finance')
               THEN '(' || s.note || ')' END), 3, s.sign_off_id
FROM reader CROSS JOIN prepaid.sign_offs s JOIN prepaid.tasks k USING (task_id)
UNION ALL
SELECT i.service_plan_id, t.received_at, 'payment_record', coalesce(t.provider, 'unknown provider'),
       concat_ws(' ', t.provider_ref, t.status, t.amount, t.currency, 'for', t.invoice_number), 4,
       t.transaction_id
FROM prepaid.transactions t JOIN prepaid.invoices i ON i.invoice_number = t.invoice_number
WHERE (SELECT reads_about_money FROM reader)
UNION ALL
SELECT e.service_plan_id, e.created_at, 'email_ordered', 'pipeline',
       format('%s to %s: %s', e.template, e.recipient, e.status), 5, e.email_id
FROM prepaid.emails e
UNION ALL
SELECT k.service_plan_id, a.assigned_at, 'task_assigned', a.assigned_by,
       concat_ws(' ', format('task %s: %s', a.task_id, coalesce('to ' || a.assigned_to, 'to the team')),
           CASE WHEN a.note IS NOT NULL AND (reader.reads_about_money OR k.assigned_role <> 'finance')
               THEN '(' || a.note || ')' END), 6, a.assignment_id
FROM reader CROSS JOIN prepaid.task_assignments a JOIN prepaid.tasks k USING (task_id);

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

-- The features of a quality check one by one, so that a person can say which of them failed.
CREATE VIEW prepaid.quality_features AS
SELECT k.task_id, 0 AS place, p.plan_name AS feature, p.quantity::bigint AS quantity
FROM prepaid.tasks k JOIN prepaid.service_plans p USING (service_plan_id)
WHERE k.kind LIKE 'quality%'
UNION ALL
SELECT k.task_id, a.place, a.addon ->> 'name', coalesce((a.addon ->> 'quantity')::bigint, 1)
FROM prepaid.tasks k JOIN prepaid.service_plans p USING (service_plan_id)
CROSS JOIN LATERAL jsonb_array_elements(p.addons) WITH ORDINALITY a (addon, place)
WHERE k.kind LIKE 'quality%';

-- Whom an open task can be handed to: the names of its team.
CREATE VIEW prepaid.colleagues AS
SELECT m.team, m.person FROM prepaid.team_members m
WHERE m.team IN (SELECT own.team FROM prepaid.team_members own WHERE own.person = prepaid.acting_person());

-- Decides what a person saw: each task with the latest sign-off that the page showed (0: none). If
-- somebody was faster nothing is decided, and the error says who it was. With agreeing_only every
-- payment must still agree. Returns how many decisions were recorded.
CREATE FUNCTION prepaid.decide_as_seen(
    task_ids bigint[], seen bigint[], new_decision text, new_note text, agreeing_only boolean
) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    changed record;
BEGIN
    IF cardinality(task_ids) IS DISTINCT FROM cardinality(seen) THEN
        RAISE EXCEPTION 'every task needs what was seen of it';
    END IF;
    PERFORM FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id FOR UPDATE;

    SELECT asked.task_id, last.decided_by, last.decision, count(*) OVER () AS others INTO changed
    FROM unnest(task_ids, seen) asked (task_id, seen)
    CROSS JOIN LATERAL (
        SELECT s.sign_off_id, s.decided_by, s.decision FROM prepaid.sign_offs s
        WHERE s.task_id = asked.task_id ORDER BY s.sign_off_id DESC LIMIT 1) last
    WHERE last.sign_off_id > asked.seen
    ORDER BY asked.task_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'nothing was recorded: % % task % while you looked%', changed.decided_by,
            changed.decision, changed.task_id,
            CASE WHEN changed.others > 1 THEN format(', and %s more were decided', changed.others - 1)
                 ELSE '' END;
    END IF;

    IF agreeing_only THEN
        SELECT v.invoice_number, v.difference, count(*) OVER () AS others INTO changed
        FROM unnest(task_ids) asked (task_id)
        CROSS JOIN LATERAL (SELECT * FROM prepaid.payment_verifications
                            WHERE task_id = asked.task_id OFFSET 0) v
        WHERE NOT v.agrees ORDER BY v.task_id LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'nothing was recorded: the payment of invoice % no longer agrees (%)%',
                changed.invoice_number, changed.difference,
                CASE WHEN changed.others > 1 THEN format(', nor do %s more', changed.others - 1)
                     ELSE '' END;
        END IF;
    END IF;
    RETURN prepaid.decide_tasks(task_ids, new_decision, new_note);
END $$;

-- Gives the customer of a plan an address, for the person who is acting: what a plan that is held for want of one needs. Plans whose details were taken before keep theirs.
CREATE FUNCTION prepaid.set_customer_email(plan bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_who_says_why('change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not a valid email address', address;
    END IF;
    UPDATE prepaid.customers c SET email = address
    FROM prepaid.service_plans p WHERE p.service_plan_id = plan AND c.customer_id = p.customer_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service plan %', plan;
    END IF;
    PERFORM prepaid.withdraw_own_approvals_of(p.customer_id)
    FROM prepaid.service_plans p WHERE p.service_plan_id = plan;
END $$;
