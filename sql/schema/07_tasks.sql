-- What people are asked to do, and what they decided.

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
    CHECK ((status = 'Open') = (decision IS NULL) OR status = 'Withdrawn'),
    CHECK (decision IS NULL OR decision IN ('approved', 'rejected') AND kind LIKE 'payment%'
        OR decision IN ('passed', 'failed') AND kind LIKE 'quality%'),
    CHECK (kind <> 'payment_verification' OR invoice_id IS NOT NULL),
    CHECK (kind <> 'payment_refund' OR credit_note_id IS NOT NULL),
    CHECK (kind <> 'payment_review' OR transaction_id IS NOT NULL),
    CHECK (kind NOT LIKE 'quality%' OR service_plan_id IS NOT NULL)
);
CREATE UNIQUE INDEX tasks_one_live_verification_per_invoice ON prepaid.tasks (invoice_id)
    WHERE kind = 'payment_verification' AND status <> 'Withdrawn';
CREATE UNIQUE INDEX tasks_one_review_per_record ON prepaid.tasks (transaction_id)
    WHERE kind = 'payment_review' AND status <> 'Withdrawn';
CREATE UNIQUE INDEX tasks_one_quality_check_per_plan ON prepaid.tasks (service_plan_id)
    WHERE kind = 'quality_check';
CREATE INDEX tasks_by_service_plan ON prepaid.tasks (service_plan_id);
CREATE INDEX tasks_open ON prepaid.tasks (kind, task_id) WHERE status = 'Open';
CREATE INDEX tasks_quality_to_close ON prepaid.tasks (task_id)
    WHERE kind IN ('quality_check', 'quality_follow_up') AND status = 'Done' AND closed_at IS NULL;

CREATE TABLE prepaid.sign_offs (
    sign_off_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL REFERENCES prepaid.tasks,
    decision text NOT NULL CHECK (decision IN ('approved', 'rejected', 'passed', 'failed')),
    note text,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sign_offs_by_task ON prepaid.sign_offs (task_id, sign_off_id);
CREATE TRIGGER sign_offs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.sign_offs
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

CREATE FUNCTION prepaid.audit_task_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT CASE n.status WHEN 'Withdrawn' THEN 'task_withdrawn' ELSE 'task_decided' END,
           n.service_plan_id, 'task', n.task_id, coalesce(o.decision, o.status),
           CASE n.status WHEN 'Withdrawn' THEN n.status ELSE n.decision END, n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE (n.status, n.decision) IS DISTINCT FROM (o.status, o.decision);
    RETURN NULL;
END $$;
CREATE TRIGGER audit_task_status AFTER UPDATE ON prepaid.tasks
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_task_status();
