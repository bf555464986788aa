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
        CHECK (status IN ('pending', 'sending', 'sent', 'failed', 'dropped')),
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
    UNIQUE (service_plan_id, template, occasion),
    -- A mail that could not even be written has failed without content. One is dropped when what it
    -- was to say was no longer true before it could be sent.
    CHECK (status IN ('pending', 'failed', 'dropped') OR content IS NOT NULL),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL)),
    CONSTRAINT emails_to_our_people_are_about_no_plan CHECK (
        (service_plan_id IS NULL) = (template IN ('overdue_tasks', 'monthly_report')))
);
CREATE UNIQUE INDEX emails_to_our_people_once ON prepaid.emails (template, occasion, recipient)
    WHERE service_plan_id IS NULL;
CREATE INDEX emails_to_send ON prepaid.emails (next_attempt_at, email_id)
    WHERE status IN ('pending', 'sending');

CREATE FUNCTION prepaid.audit_email_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'email_' || n.status, n.service_plan_id, 'email', n.email_id, o.status, n.status,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.status <> o.status
      AND (n.status IN ('sent', 'failed', 'dropped') OR o.status = 'failed');
    RETURN NULL;
END $$;
CREATE TRIGGER audit_email_status AFTER UPDATE ON prepaid.emails
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_email_status();

-- Sends failed mails again under the acting person's name, all or nothing: what was written is sent
-- as it was, the same bytes with the same Message-ID. Returns how many.
CREATE FUNCTION prepaid.resend_emails(email_ids bigint[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    resent integer;
    refused record;
BEGIN
    IF NOT prepaid.is_in_team(person, 'customer_success', 'engineering') THEN
        RAISE EXCEPTION '% may not send mails again: not in customer_success or engineering', person;
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM FROM prepaid.emails e WHERE e.email_id = ANY (email_ids) ORDER BY e.email_id FOR UPDATE;
    SELECT asked.email_id, e.status INTO refused
    FROM unnest(email_ids) asked (email_id)
    LEFT JOIN prepaid.emails e USING (email_id)
    WHERE e.status IS DISTINCT FROM 'failed' ORDER BY asked.email_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'mail % cannot be sent again: %', refused.email_id,
            coalesce('only failed ones can, and it is ' || refused.status, 'there is no such mail');
    END IF;
    UPDATE prepaid.emails e
    SET status = 'pending', attempts = 0, next_attempt_at = clock_timestamp()
    WHERE e.email_id = ANY (email_ids);
    GET DIAGNOSTICS resent = ROW_COUNT;
    RETURN resent;
END $$;

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
