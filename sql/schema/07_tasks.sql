-- What people are asked to do, and what they decided.

-- Above this amount two different people of finance approve a payment or a refund; a currency that is
-- not here needs one. 'prepaid migrate' writes it from PREPAID_SECOND_APPROVAL_ABOVE.
CREATE TABLE prepaid.approval_limits (
    currency text PRIMARY KEY REFERENCES prepaid.currencies,
    amount numeric NOT NULL CHECK (amount >= 0 AND amount < 'Infinity')
);
CREATE FUNCTION prepaid.audit_approval_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log (event, entity, before, after, detail, actor, run_id, as_of)
    VALUES ('approval_limit_changed', 'approval_limit', OLD.amount, NEW.amount,
            coalesce(NEW.currency, OLD.currency), prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    RETURN NULL;
END $$;
CREATE TRIGGER audit_approval_limit AFTER INSERT OR UPDATE OR DELETE ON prepaid.approval_limits
    FOR EACH ROW EXECUTE FUNCTION prepaid.audit_approval_limit();

CREATE TABLE prepaid.tasks (
    task_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN (
        'payment_verification', 'payment_review', 'payment_refund',
        'quality_check', 'quality_follow_up')),
    service_plan_id bigint REFERENCES prepaid.service_plans,
    invoice_id bigint REFERENCES prepaid.invoices,
    transaction_id bigint REFERENCES prepaid.transactions,
    parent_task_id bigint UNIQUE REFERENCES prepaid.tasks,
    assigned_role text NOT NULL CHECK (assigned_role IN ('finance', 'customer_success')),
    status text NOT NULL DEFAULT 'Open' CHECK (status IN ('Open', 'Done', 'Withdrawn')),
    opened_on date NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The latest sign-off; all of them are in sign_offs.
    decision text,
    note text,
    decided_by text,
    decided_at timestamptz,
    -- When close_quality_checks has acted on a quality decision; it cannot be changed after that.
    closed_at timestamptz,
    credit_note_id bigint REFERENCES prepaid.credit_notes,
    -- Above the limit: who approved first. The task stays Open until somebody else approves as well.
    first_approved_by text,
    first_approved_at timestamptz,
    due_on date NOT NULL,
    -- The person who is asked; null: the whole team. Anybody of the team may decide.
    assigned_to text,
    CHECK ((status = 'Open') = (decision IS NULL) OR status = 'Withdrawn'),
    CHECK (decision IS NULL OR decision IN ('approved', 'rejected') AND kind LIKE 'payment%'
        OR decision IN ('passed', 'failed') AND kind LIKE 'quality%'),
    CHECK (kind <> 'payment_verification' OR invoice_id IS NOT NULL),
    CHECK (kind <> 'payment_refund' OR credit_note_id IS NOT NULL),
    CHECK (kind <> 'payment_review' OR transaction_id IS NOT NULL),
    CHECK (kind NOT LIKE 'quality%' OR service_plan_id IS NOT NULL),
    CONSTRAINT tasks_first_approval_is_whole CHECK (
        (first_approved_by IS NULL) = (first_approved_at IS NULL)),
    CONSTRAINT tasks_first_approval_leads_to_another CHECK (
        first_approved_by IS NULL OR decision IS NULL OR decision = 'approved'),
    CONSTRAINT tasks_approved_by_two_people CHECK (
        decision IS DISTINCT FROM 'approved' OR first_approved_by IS NULL
        OR coalesce(first_approved_by <> decided_by, false))
);
CREATE UNIQUE INDEX tasks_one_live_verification_per_invoice ON prepaid.tasks (invoice_id)
    WHERE kind = 'payment_verification' AND status <> 'Withdrawn';
CREATE UNIQUE INDEX tasks_one_review_per_record ON prepaid.tasks (transaction_id)
    WHERE kind = 'payment_review' AND status = 'Open';
CREATE INDEX tasks_reviews ON prepaid.tasks (transaction_id) WHERE kind = 'payment_review';
CREATE UNIQUE INDEX tasks_one_quality_check_per_plan ON prepaid.tasks (service_plan_id)
    WHERE kind = 'quality_check';
CREATE INDEX tasks_by_service_plan ON prepaid.tasks (service_plan_id);
CREATE INDEX tasks_open ON prepaid.tasks (kind, task_id) WHERE status = 'Open';
CREATE INDEX tasks_quality_to_close ON prepaid.tasks (task_id)
    WHERE kind IN ('quality_check', 'quality_follow_up') AND status = 'Done' AND closed_at IS NULL;
-- A month's tasks, for the report. They come in the order of their days: a summary per range of pages
-- costs the process next to nothing.
CREATE INDEX tasks_by_day ON prepaid.tasks USING brin (opened_on) WITH (autosummarize = on);


-- Which tasks need two people, as the limits are now.
CREATE VIEW prepaid.two_person_tasks AS
SELECT k.task_id, l.amount AS above, l.currency
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.approval_limits l ON l.currency = i.currency AND i.payable > l.amount
WHERE k.kind = 'payment_verification'
UNION ALL
SELECT k.task_id, l.amount, l.currency
FROM prepaid.tasks k
JOIN prepaid.credit_notes n USING (credit_note_id)
JOIN prepaid.approval_limits l ON l.currency = n.currency AND n.refund > l.amount
WHERE k.kind = 'payment_refund';

CREATE FUNCTION prepaid.set_due_date() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.due_on := NEW.opened_on + (SELECT task_days FROM prepaid.installation);
    RETURN NEW;
END $$;
CREATE TRIGGER set_due_date BEFORE INSERT ON prepaid.tasks
    FOR EACH ROW WHEN (NEW.due_on IS NULL) EXECUTE FUNCTION prepaid.set_due_date();

-- Whoever writes, and whatever way: above the limit there is no approval by one alone.
CREATE FUNCTION prepaid.require_two_people() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Without a limit, as in most installations, thousands of rows ask nothing more than that.
    IF EXISTS (SELECT FROM prepaid.approval_limits)
       AND EXISTS (SELECT FROM prepaid.two_person_tasks two WHERE two.task_id = NEW.task_id) THEN
        RAISE EXCEPTION 'task % needs the approval of two people', NEW.task_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER require_two_people BEFORE UPDATE ON prepaid.tasks
    FOR EACH ROW WHEN (NEW.decision = 'approved' AND OLD.decision IS DISTINCT FROM 'approved'
                       AND NEW.first_approved_by IS NULL)
    EXECUTE FUNCTION prepaid.require_two_people();

CREATE TABLE prepaid.sign_offs (
    sign_off_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL REFERENCES prepaid.tasks,
    decision text NOT NULL CHECK (decision IN ('approved', 'rejected', 'passed', 'failed')),
    note text,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sign_offs_by_task ON prepaid.sign_offs (task_id, sign_off_id);
CREATE TRIGGER sign_offs_append_only BEFORE DELETE OR TRUNCATE ON prepaid.sign_offs
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
-- Also for a session that plays a replica (session_replication_role), in which triggers rest.
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER sign_offs_append_only;
ALTER TABLE prepaid.audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;

-- A sign-off is made by the person whose name it has, and for their own team: not by the pipeline,
-- and not by the owner of the tables in somebody's name.
CREATE FUNCTION prepaid.only_people_sign() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    SELECT n.decided_by, k.task_id, k.assigned_role INTO wrong
    FROM new_rows n LEFT JOIN prepaid.tasks k USING (task_id)
    WHERE n.decided_by <> prepaid.acting_person() OR k.assigned_role NOT IN (
        SELECT m.team FROM prepaid.team_members m WHERE m.person = prepaid.acting_person())
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'no sign-off of task % by %: only a person of % signs it, under their own name',
            wrong.task_id, wrong.decided_by, wrong.assigned_role;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER only_people_sign AFTER INSERT ON prepaid.sign_offs
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.only_people_sign();
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER only_people_sign;

-- Who was asked to do a task, by whom and why; rows are only ever added.
CREATE TABLE prepaid.task_assignments (
    assignment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL REFERENCES prepaid.tasks,
    assigned_to text,
    note text,
    assigned_by text NOT NULL,
    assigned_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX task_assignments_by_task ON prepaid.task_assignments (task_id);
CREATE TRIGGER task_assignments_append_only BEFORE DELETE OR TRUNCATE
    ON prepaid.task_assignments FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

CREATE FUNCTION prepaid.audit_task_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT CASE n.status WHEN 'Withdrawn' THEN 'task_withdrawn' WHEN 'Open' THEN 'task_first_approved'
                ELSE 'task_decided' END,
           n.service_plan_id, 'task', n.task_id, coalesce(o.decision, o.status),
           CASE n.status WHEN 'Done' THEN n.decision ELSE n.status END, n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE (n.status, n.decision) IS DISTINCT FROM (o.status, o.decision)
       OR n.status = 'Open' AND n.first_approved_by IS DISTINCT FROM o.first_approved_by;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'task_reassigned', n.service_plan_id, 'task', n.task_id, o.assigned_to, n.assigned_to, n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE n.assigned_to IS DISTINCT FROM o.assigned_to;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'task_closed', n.service_plan_id, 'task', n.task_id, n.decision, 'closed', n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE n.closed_at IS NOT NULL AND o.closed_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_task_status AFTER UPDATE ON prepaid.tasks
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_task_status();
