-- The outbox. Step 10 orders a mail here; the job send_emails renders, stores and sends it.

CREATE TABLE prepaid.emails (
    email_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Null for a mail to our own people, which is about no one plan.
    service_plan_id bigint REFERENCES prepaid.service_plans,
    template text NOT NULL,
    -- What makes two mails of one template for one plan different (the step, or a reminder's day).
    occasion text NOT NULL,
    recipient text NOT NULL,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'sending', 'sent', 'failed', 'unknown', 'dropped')),
    -- The bytes are stored before the first attempt: every attempt sends the same mail.
    message_id text UNIQUE,
    content bytea,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_until timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at timestamptz,
    -- The invoice that the mail is about; null for a mail about the plan and its live invoice.
    invoice_id bigint REFERENCES prepaid.invoices,
    -- Attempts that ended between the last byte of the mail and the server's answer: each may have
    -- delivered it. After the second a person decides, so that there is at most one extra copy.
    unknown_attempts integer NOT NULL DEFAULT 0,
    -- Since when the server puts it off; null again when a person sends it again.
    deferred_since timestamptz,
    -- How often its address was corrected: each time it is written again, as another message.
    corrections integer NOT NULL DEFAULT 0,
    UNIQUE (service_plan_id, template, occasion),
    -- A mail that could not even be written has failed without content. One is dropped when what it
    -- was to say was no longer true before it could be sent.
    CHECK (status IN ('pending', 'failed', 'dropped') OR content IS NOT NULL),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL)),
    CONSTRAINT emails_to_our_people_are_about_no_plan CHECK (
        (service_plan_id IS NULL) = (template IN ('overdue_tasks', 'monthly_report')))
);
-- Most of it is a PDF in base64, which does not get smaller; trying to took as long as sending.
ALTER TABLE prepaid.emails ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX emails_to_our_people_once ON prepaid.emails (template, occasion, recipient)
    WHERE service_plan_id IS NULL;
CREATE INDEX emails_to_send ON prepaid.emails (next_attempt_at, email_id)
    WHERE status IN ('pending', 'sending');
CREATE INDEX emails_undelivered ON prepaid.emails (email_id) WHERE status IN ('failed', 'unknown');

CREATE FUNCTION prepaid.audit_email_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'email_' || n.status, n.service_plan_id, 'email', n.email_id, o.status, n.status,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.status <> o.status
      AND (n.status IN ('sent', 'failed', 'unknown', 'dropped') OR o.status IN ('failed', 'unknown'));
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'email_attempt_unknown', n.service_plan_id, 'email', n.email_id, o.status, n.status,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.unknown_attempts > o.unknown_attempts AND n.status <> 'unknown';
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, detail, actor, run_id, as_of)
    SELECT 'email_address_corrected', n.service_plan_id, 'email', n.email_id,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.corrections > o.corrections;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_email_status AFTER UPDATE ON prepaid.emails
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_email_status();

-- Which open tasks a mail to our own people is about. Nobody is reminded of the same task in the same
-- stage twice.
CREATE TABLE prepaid.task_reminders (
    task_id bigint NOT NULL REFERENCES prepaid.tasks,
    stage text NOT NULL CHECK (stage IN ('overdue', 'escalated')),
    recipient text NOT NULL,
    email_id bigint NOT NULL REFERENCES prepaid.emails,
    reminded_on date NOT NULL,
    PRIMARY KEY (task_id, stage, recipient)
);
CREATE INDEX task_reminders_by_email ON prepaid.task_reminders (email_id);
