-- What people are asked to do, by when, and which of them.

-- Whose task it is.
CREATE FUNCTION prepaid.team_of(kind text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN kind LIKE 'quality%' THEN 'customer_success' ELSE 'finance' END;

CREATE TABLE prepaid.tasks (
    task_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN (
        'payment_verification', 'payment_review', 'payment_refund', 'price_concession',
        'quality_check', 'quality_follow_up')),
    service_plan_id bigint REFERENCES prepaid.service_plans,
    invoice_id bigint REFERENCES prepaid.invoices,
    transaction_id bigint REFERENCES prepaid.transactions,
    parent_task_id bigint UNIQUE REFERENCES prepaid.tasks,
    assigned_role text NOT NULL,
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
    -- What finance is asked to give away: plan_id, unit_price, quantity and discounts as on the service
    -- plan, list_net and net of the term, and why it is a concession.
    concession jsonb,
    CONSTRAINT tasks_assigned_role_check CHECK (assigned_role = prepaid.team_of(kind)),
    CHECK ((status = 'Open') = (decision IS NULL) OR status = 'Withdrawn'),
    CHECK (decision IS NULL OR decision IN ('approved', 'rejected') AND kind NOT LIKE 'quality%'
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
        OR coalesce(first_approved_by <> decided_by, false)),
    CONSTRAINT tasks_concession_says_what CHECK (
        kind <> 'price_concession' OR service_plan_id IS NOT NULL AND concession IS NOT NULL)
);
CREATE UNIQUE INDEX tasks_one_live_verification_per_invoice ON prepaid.tasks (invoice_id)
    WHERE kind = 'payment_verification' AND status <> 'Withdrawn';
CREATE UNIQUE INDEX tasks_one_review_per_record ON prepaid.tasks (transaction_id)
    WHERE kind = 'payment_review' AND status = 'Open';
CREATE INDEX tasks_reviews ON prepaid.tasks (transaction_id) WHERE kind = 'payment_review';
CREATE UNIQUE INDEX tasks_one_quality_check_per_plan ON prepaid.tasks (service_plan_id)
    WHERE kind = 'quality_check';
CREATE UNIQUE INDEX tasks_one_open_concession_per_plan ON prepaid.tasks (service_plan_id)
    WHERE kind = 'price_concession' AND status = 'Open';
CREATE INDEX tasks_by_service_plan ON prepaid.tasks (service_plan_id);
CREATE INDEX tasks_open ON prepaid.tasks (kind, task_id) WHERE status = 'Open';
CREATE INDEX tasks_quality_to_close ON prepaid.tasks (task_id)
    WHERE kind IN ('quality_check', 'quality_follow_up') AND status = 'Done' AND closed_at IS NULL;
-- A month's tasks, for the report. They come in the order of their days: a summary per range of pages
-- costs the process next to nothing.
CREATE INDEX tasks_by_day ON prepaid.tasks USING brin (opened_on) WITH (autosummarize = on);

-- Until when a task is to be decided. Whoever opens one says so: due_on has no default.
CREATE FUNCTION prepaid.task_due_on(opened_on date) RETURNS date LANGUAGE sql STABLE RETURN
    opened_on + (SELECT task_days FROM prepaid.installation);

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
