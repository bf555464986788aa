-- The sign-off desk: two people above a limit, four eyes, due dates and reminders, accounts and sessions.

DROP VIEW prepaid.quality_checks;

DROP VIEW prepaid.payment_verifications;

DROP VIEW prepaid.unpaid_invoices;

ALTER TABLE prepaid.installation
    ADD COLUMN task_days integer NOT NULL DEFAULT 3 CHECK (task_days >= 0);

-- Open tasks have been waiting already: they are due as if the rule had held when they were opened.
ALTER TABLE prepaid.tasks
    ADD COLUMN first_approved_by text,
    ADD COLUMN first_approved_at timestamptz,
    ADD COLUMN due_on date,
    ADD COLUMN assigned_to text;
ALTER TABLE prepaid.tasks DISABLE TRIGGER USER;
UPDATE prepaid.tasks SET due_on = opened_on + 3;
ALTER TABLE prepaid.tasks ENABLE TRIGGER USER;
ALTER TABLE prepaid.tasks ALTER COLUMN due_on SET NOT NULL,
    ADD CONSTRAINT tasks_first_approval_is_whole CHECK (
        (first_approved_by IS NULL) = (first_approved_at IS NULL)),
    ADD CONSTRAINT tasks_first_approval_leads_to_another CHECK (
        first_approved_by IS NULL OR decision IS NULL OR decision = 'approved'),
    ADD CONSTRAINT tasks_approved_by_two_people CHECK (
        decision IS DISTINCT FROM 'approved' OR first_approved_by IS NULL
        OR coalesce(first_approved_by <> decided_by, false));

ALTER TABLE prepaid.emails ALTER COLUMN service_plan_id DROP NOT NULL,
    ADD CHECK ((service_plan_id IS NULL) = (template = 'overdue_tasks'));


-- Finance says which invoice a parked record pays. The record stays as it was delivered; who assigned
-- it is noted, and match_payments judges it anew. It may be over more than the invoice.
CREATE OR REPLACE FUNCTION prepaid.assign_record(record bigint, to_invoice text, reason text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    paid prepaid.transactions;
    asked prepaid.invoices;
BEGIN
    IF NOT prepaid.is_in_team(person, 'finance') THEN
        RAISE EXCEPTION '% may not assign payments: only finance can', person;
    END IF;
    IF coalesce(reason, '') !~ '\S' THEN
        RAISE EXCEPTION 'assigning a payment needs a note that says why';
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
    SELECT * INTO paid FROM prepaid.transactions WHERE transaction_id = record FOR UPDATE;
    SELECT * INTO asked FROM prepaid.invoices WHERE invoice_number = to_invoice;
    IF paid.transaction_id IS NULL THEN
        RAISE EXCEPTION 'there is no payment record %', record;
    ELSIF paid.outcome IS DISTINCT FROM 'parked' THEN
        RAISE EXCEPTION 'payment record % is %: only a parked one can be assigned', record,
            coalesce(paid.outcome, 'not judged yet');
    ELSIF prepaid.record_status(paid.status) <> 'Success' THEN
        RAISE EXCEPTION 'payment record % says %: only Success pays', record, paid.status;
    ELSIF asked.invoice_id IS NULL THEN
        RAISE EXCEPTION 'there is no invoice %', to_invoice;
    ELSIF asked.status <> 'Open' THEN
        RAISE EXCEPTION 'invoice % is %: only an open one can be paid', to_invoice, asked.status;
    ELSIF paid.currency IS DISTINCT FROM asked.currency THEN
        RAISE EXCEPTION 'payment record % is in %, invoice % in %', record, paid.currency, to_invoice,
            asked.currency;
    ELSIF EXISTS (SELECT FROM prepaid.transactions t
                  WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(paid.provider_ref, 0)
                    AND t.provider = paid.provider AND t.provider_ref = paid.provider_ref
                    AND t.provider <> '' AND t.provider_ref <> '' AND t.outcome = 'matched'
                    AND t.credit_note_id IS NULL) THEN
        RAISE EXCEPTION 'payment % has paid an invoice already: it pays one only', paid.provider_ref;
    ELSIF NOT coalesce(paid.amount > 0 AND paid.amount < 'Infinity', false) THEN
        RAISE EXCEPTION 'payment record % is over %: nothing that pays', record, paid.amount;
    END IF;
    UPDATE prepaid.transactions
    SET assigned_by = person, invoice_id = asked.invoice_id, outcome = NULL, outcome_reason = NULL
    WHERE transaction_id = record;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, detail, actor, run_id, as_of)
    VALUES ('transaction_assigned', asked.service_plan_id, 'transaction', record, 'parked',
            format('to invoice %s: %s', to_invoice, reason), person, prepaid.run_id(), prepaid.as_of());
END $$;

-- What gives somebody a hand in a plan (view four_eyes): few of all entries, so that a look-up per task
-- costs nothing. Plans and invoices that the pipeline opens are nobody's.
CREATE INDEX audit_log_of_hands ON prepaid.audit_log (service_plan_id)
    WHERE event IN ('hold_released', 'transaction_assigned', 'change_requested',
                    'cancellation_requested', 'invoice_void_requested', 'invoice_reissue_requested',
                    'service_plan_cancelled', 'term_cut', 'invoice_void', 'credit_note_issued');
-- Who last changed a customer, a subscription or a discount.
CREATE INDEX audit_log_of_master_data ON prepaid.audit_log (entity, entity_id, audit_id)
    WHERE service_plan_id IS NULL;

-- Who counts as a person of a team. Teams are database roles; each person is a role of their own in
-- one of them.

-- How a person signs in at the pages, and where mail reaches them. Nobody reads the table: the pages
-- ask functions (14_desk.sql). The role is what holds rights; an account without one can do nothing.
CREATE TABLE prepaid.desk_accounts (
    person text PRIMARY KEY,
    -- argon2id, in its own encoded form; null for those who sign in elsewhere or only decide by SQL.
    password_hash text CHECK (password_hash LIKE '$argon2id$%'),
    failed integer NOT NULL DEFAULT 0 CHECK (failed >= 0),
    locked_until timestamptz,
    -- Who left: can neither sign in nor decide, in no way; what they decided stays.
    disabled boolean NOT NULL DEFAULT false,
    email text CHECK (email LIKE '_%@_%' AND email !~ '[[:cntrl:][:space:]]'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The people of each team. Not a superuser, not the pipeline's own user and not a team's role itself,
-- whatever they are members of: a decision has one person's name.
CREATE VIEW prepaid.team_members AS
SELECT r.rolname AS person, team.name AS team, a.email
FROM unnest(ARRAY['finance', 'customer_success', 'leadership', 'engineering']) team (name)
JOIN pg_roles r ON pg_has_role(r.oid, team.name::name, 'USAGE')
LEFT JOIN prepaid.desk_accounts a ON a.person = r.rolname
WHERE NOT r.rolsuper AND a.disabled IS NOT TRUE
  AND r.rolname NOT IN ('finance', 'customer_success', 'leadership', 'engineering', 'desk')
  AND r.oid <> (SELECT relowner FROM pg_class WHERE oid = 'prepaid.desk_accounts'::regclass);

-- For functions that act with the owner's rights: others may not read team_members.
CREATE FUNCTION prepaid.is_in_team(name text, VARIADIC teams text[]) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM prepaid.team_members m
                   WHERE m.person = is_in_team.name AND m.team = ANY (teams));
END $$;

-- The acting person, if that person is in one of the teams and says why; the audit log then names
-- them, also in a session of their own, where prepaid.actor could say anything.
CREATE OR REPLACE FUNCTION prepaid.person_in(teams text[], what text, why text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    person text := prepaid.acting_person();
BEGIN
    IF NOT prepaid.is_in_team(person, VARIADIC teams) THEN
        RAISE EXCEPTION '% may not %: not in %', person, what, array_to_string(teams, ' or ');
    END IF;
    IF coalesce(why, '') !~ '\S' THEN
        RAISE EXCEPTION 'to % needs a note that says why', what;
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    RETURN person;
END $$;

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

CREATE TRIGGER task_assignments_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON prepaid.task_assignments FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

CREATE OR REPLACE FUNCTION prepaid.audit_task_status() RETURNS trigger LANGUAGE plpgsql
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
    RETURN NULL;
END $$;

CREATE UNIQUE INDEX emails_to_our_people_once ON prepaid.emails (template, occasion, recipient)
    WHERE service_plan_id IS NULL;

-- Sends failed mails again under the acting person's name, all or nothing: what was written is sent
-- as it was, the same bytes with the same Message-ID. Returns how many.
CREATE OR REPLACE FUNCTION prepaid.resend_emails(email_ids bigint[])
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

-- Invoices that nobody has begun to pay, so that the customer is reminded and at last the plan is
-- cancelled. Not while anything about the payment is in our own hands: the plan held, a record that
-- matches, waits or was not judged yet, a question to finance, or an approval that came first.
CREATE VIEW prepaid.unpaid_invoices AS
SELECT i.invoice_id, i.invoice_number, p.service_plan_id, p.email,
       prepaid.due_on(i.issued_on, p.planned_start) AS due_on, running.end_date AS running_until
FROM prepaid.service_plans p
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Open'
LEFT JOIN prepaid.service_plans running
    ON running.service_plan_id = p.previous_plan_id AND p.kind = 'change'
WHERE p.status = 'Pending' AND p.invoiced_at IS NOT NULL AND p.settled_at IS NULL
  AND i.payable > 0
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched')
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_number = i.invoice_number
                    AND (t.outcome IS NULL OR t.outcome = 'waiting'))
  -- Assigned to it by a person, whatever number the record has.
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.service_plan_id = p.service_plan_id AND k.invoice_id = i.invoice_id
                    AND (k.kind = 'payment_review' AND k.status = 'Open'
                      OR k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
                        AND (k.decision = 'approved' OR k.first_approved_by IS NOT NULL)));

-- How people decide: one function, and over it the two sign-off tables (updatable views).

-- Four eyes: who may not decide on which task of money, and why. Who opened or changed the plan, its
-- invoice or its payment, and who last changed the data of the customer or the subscription; the audit
-- log knows them. An import is nobody's. (The hold of a rejection that is released while its task
-- stands was released by deciding.)
CREATE VIEW prepaid.four_eyes AS
SELECT k.task_id, hand.person, hand.what
FROM prepaid.tasks k
JOIN prepaid.service_plans p USING (service_plan_id)
CROSS JOIN LATERAL (
    SELECT a.actor AS person, CASE a.event
               WHEN 'hold_released' THEN 'released a hold of the plan'
               WHEN 'transaction_assigned' THEN 'assigned the payment to the invoice'
               WHEN 'invoice_reissue_requested' THEN 'had the invoice issued again'
               WHEN 'change_requested' THEN 'opened the plan, as a change of another'
               WHEN 'invoice_void_requested' THEN 'had the invoice voided'
               WHEN 'invoice_void' THEN 'had the invoice voided'
               WHEN 'term_cut' THEN 'cut the term'
               WHEN 'credit_note_issued' THEN 'had the credit note issued'
               ELSE 'cancelled the plan' END AS what
    FROM prepaid.audit_log a
    WHERE a.service_plan_id = k.service_plan_id
      AND a.event IN ('hold_released', 'transaction_assigned', 'change_requested',
                      'cancellation_requested', 'invoice_void_requested', 'invoice_reissue_requested',
                      'service_plan_cancelled', 'term_cut', 'invoice_void', 'credit_note_issued')
      AND NOT (a.event = 'hold_released' AND a.before = 'payment_rejected' AND a.at > k.opened_at)
    UNION ALL
    SELECT last.actor, 'last changed the customer''s data'
    FROM (SELECT a.actor FROM prepaid.audit_log a
          WHERE a.service_plan_id IS NULL AND a.entity = 'customer' AND a.entity_id = p.customer_id
          ORDER BY a.audit_id DESC LIMIT 1) last
    UNION ALL
    SELECT last.actor, 'last changed the subscription'
    FROM (SELECT a.actor FROM prepaid.audit_log a
          WHERE a.service_plan_id IS NULL AND a.entity = 'subscription'
            AND a.entity_id = p.subscription_id
          ORDER BY a.audit_id DESC LIMIT 1) last
    UNION ALL
    SELECT last.actor, 'last changed a discount of the subscription'
    FROM prepaid.discounts d
    CROSS JOIN LATERAL (SELECT a.actor FROM prepaid.audit_log a
          WHERE a.service_plan_id IS NULL AND a.entity = 'discount' AND a.entity_id = d.discount_id
          ORDER BY a.audit_id DESC LIMIT 1) last
    WHERE d.subscription_id = p.subscription_id
) hand
WHERE k.kind IN ('payment_verification', 'payment_refund');

-- Decides tasks for the person who is acting (the role that is set, or the session's user).
-- All or nothing. Returns how many decisions were recorded; the same decision again is not one. Above
-- the limit the first approval leaves the task Open; a rejection needs one person.
CREATE OR REPLACE FUNCTION prepaid.decide_tasks(task_ids bigint[], new_decision text, new_note text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp
-- All look-ups are by key, so one plan is right for 1 task and for 3,000; planning anew cost as much.
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    person text := prepaid.acting_person();
    teams text[] := ARRAY(SELECT m.team FROM prepaid.team_members m WHERE m.person = acting_person());
    recorded integer;
    refused record;
BEGIN
    -- In a session of one's own prepaid.actor could say anything: the audit log names the person.
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id FOR UPDATE;

    -- Look-ups by key (OFFSET 0 keeps the planner from turning them round): the view's trigger calls
    -- this once per row, and a scan of all tasks each time would make 3,000 approvals quadratic.
    SELECT * INTO refused FROM (
        SELECT asked.task_id, CASE
            WHEN k.task_id IS NULL THEN 'there is no such task'
            WHEN k.assigned_role <> ALL (teams)
                THEN format('it belongs to %s, and %s is not in that team', k.assigned_role, person)
            WHEN k.status = 'Withdrawn'
                THEN 'it was withdrawn; look for the new task of the same invoice'
            WHEN new_decision IS NULL
                OR new_decision NOT IN ('approved', 'rejected', 'passed', 'failed')
                OR (k.kind LIKE 'payment%') <> (new_decision IN ('approved', 'rejected'))
                THEN format('the decision must be %s, not %s',
                    CASE WHEN k.kind LIKE 'payment%' THEN 'approved or rejected'
                         ELSE 'passed or failed' END, coalesce(quote_literal(new_decision), 'empty'))
            WHEN new_decision IN ('rejected', 'failed') AND coalesce(new_note, '') !~ '\S'
                THEN format('%s needs a note that says why', new_decision)
            WHEN i.status <> 'Open' AND k.kind = 'payment_verification'
                THEN format('invoice %s is already %s', i.invoice_number, i.status)
            WHEN k.closed_at IS NOT NULL THEN 'it is closed; use its follow-up task'
            WHEN new_decision = 'approved' AND k.status = 'Open' AND k.first_approved_by = person
                THEN format('%s has approved it already, as the first of two: somebody else approves '
                            'it next', person)
            WHEN own.what IS NOT NULL THEN format('%s %s: somebody else decides', person, own.what)
            END AS reason
        FROM unnest(task_ids) asked (task_id)
        LEFT JOIN LATERAL (SELECT * FROM prepaid.tasks
                           WHERE task_id = asked.task_id OFFSET 0) k ON true
        LEFT JOIN LATERAL (SELECT * FROM prepaid.invoices
                           WHERE invoice_id = k.invoice_id OFFSET 0) i ON true
        LEFT JOIN LATERAL (SELECT e.what FROM prepaid.four_eyes e
                           WHERE e.task_id = asked.task_id AND e.person = acting_person()
                           LIMIT 1) own ON true
    ) judged
    WHERE reason IS NOT NULL ORDER BY task_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task % cannot be decided: %', refused.task_id, refused.reason;
    END IF;

    WITH decided AS (
        UPDATE prepaid.tasks k
        SET status = CASE WHEN step.is_first THEN 'Open' ELSE 'Done' END,
            decision = CASE WHEN NOT step.is_first THEN new_decision END,
            note = CASE WHEN NOT step.is_first THEN new_note END,
            decided_by = CASE WHEN NOT step.is_first THEN person END,
            decided_at = CASE WHEN NOT step.is_first THEN clock_timestamp() END,
            first_approved_by = CASE WHEN step.is_first THEN person
                                     WHEN new_decision = 'approved' THEN k.first_approved_by END,
            first_approved_at = CASE WHEN step.is_first THEN clock_timestamp()
                                     WHEN new_decision = 'approved' THEN k.first_approved_at END
        FROM (
            SELECT t.task_id, two.needed, two.needed AND t.first_approved_by IS NULL AS is_first
            FROM (SELECT DISTINCT task_id FROM unnest(task_ids) asked (task_id)) asked
            CROSS JOIN LATERAL (SELECT * FROM prepaid.tasks
                                WHERE task_id = asked.task_id OFFSET 0) t
            CROSS JOIN LATERAL (SELECT new_decision = 'approved' AND EXISTS (
                SELECT FROM prepaid.two_person_tasks WHERE task_id = t.task_id OFFSET 0) AS needed) two
        ) step
        WHERE k.task_id = step.task_id
          AND (k.decision, k.note, k.decided_by) IS DISTINCT FROM (new_decision, new_note, person)
          -- Two have approved: a third approval adds nothing.
          AND NOT (k.decision = 'approved' AND new_decision = 'approved'
                   AND (step.needed OR k.first_approved_by IS NOT NULL)) IS TRUE
        RETURNING k.task_id
    )
    INSERT INTO prepaid.sign_offs (task_id, decision, note, decided_by)
    SELECT task_id, new_decision, new_note, person FROM decided ORDER BY task_id;
    GET DIAGNOSTICS recorded = ROW_COUNT;

    IF new_decision = 'rejected' THEN
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT i.service_plan_id, 'payment_rejected',
            format('%s rejected the payment of invoice %s: %s. Clear it up with the customer; '
                   'releasing the hold asks finance again.', person, i.invoice_number, new_note)
        FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'payment_verification'
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
    ELSIF new_decision = 'approved' THEN
        -- A later approval of the same task (the second one, where it takes two) replaces the
        -- rejection, and with it the hold.
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = 'approved after all'
        FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'payment_verification' AND k.status = 'Done'
          AND h.service_plan_id = i.service_plan_id AND h.reason_code = 'payment_rejected'
          AND h.released_at IS NULL;
    END IF;
    RETURN recorded;
END $$;

-- Releases every live hold of a plan under the acting person's name; the plan goes on where it was.
-- A released rejection opens a new verification task on the same invoice. Holds about money are for
-- finance; a payment that was taken back is not made good by releasing. Returns the holds released.
CREATE OR REPLACE FUNCTION prepaid.release_holds(plan bigint, release_note text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    released integer;
    rejected boolean;
    reversed boolean;
    money text;
    unpaid text;
BEGIN
    IF NOT prepaid.is_in_team(person, 'finance', 'customer_success', 'engineering') THEN
        RAISE EXCEPTION '% may not release holds: not in finance, customer_success or engineering', person;
    END IF;
    IF coalesce(release_note, '') !~ '\S' THEN
        RAISE EXCEPTION 'releasing a hold needs a note that says what was done';
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    -- What was released is asked of the release itself: a rejection at this very moment is either
    -- among it or stays a hold.
    WITH freed AS (
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = release_note
        WHERE h.service_plan_id = plan AND h.released_at IS NULL
        RETURNING h.reason_code
    )
    SELECT count(*), bool_or(reason_code = 'payment_rejected'), bool_or(reason_code = 'payment_reversed'),
           string_agg(reason_code, ', ' ORDER BY reason_code) FILTER (WHERE reason_code IN (
               'payment_rejected', 'payment_reversed', 'payment_mismatch', 'change_paid_late',
               'credit_not_paid', 'credit_differs', 'invoice_voided'))
    INTO released, rejected, reversed, money FROM freed;
    IF released = 0 THEN
        RAISE EXCEPTION 'service plan % is not held', plan;
    END IF;
    IF money IS NOT NULL AND NOT prepaid.is_in_team(person, 'finance') THEN
        RAISE EXCEPTION '% may not release %: it is about money, only finance can', person, money;
    END IF;
    SELECT i.invoice_number INTO unpaid FROM prepaid.invoices i
    WHERE i.service_plan_id = plan AND i.status = 'Open' AND reversed;
    IF FOUND THEN
        RAISE EXCEPTION 'the payment of invoice % was taken back, releasing does not pay it: the hold ends '
            'with a payment that stands, with cancelling the plan at once, or, when the term is over, with '
            'voiding the invoice', unpaid;
    END IF;
    IF rejected THEN
        UPDATE prepaid.tasks k SET status = 'Withdrawn'
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND k.invoice_id = i.invoice_id
          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
          AND k.decision IS DISTINCT FROM 'approved';
        INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on)
        SELECT 'payment_verification', plan, i.invoice_id, 'finance',
               prepaid.today()
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND i.payable > 0
          AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn');
    END IF;
    RETURN released;
END $$;

-- What a finance officer needs to decide: the invoice, the provider's record beside it, and in words
-- what differs. Of a payment in parts the last record is shown, with the amount of all.
-- UPDATE … SET decision = 'approved' | 'rejected', note = '…' WHERE task_id = …
CREATE VIEW prepaid.payment_verifications AS
SELECT k.task_id, k.status, k.opened_on, i.invoice_number, p.service_plan_id,
       c.customer_ref, p.customer_name, p.plan_name, p.kind, i.currency, i.net, i.tax, i.total, i.payable,
       r.provider AS record_provider, r.provider_ref AS record_ref, r.status AS record_status,
       coalesce(matched.amount, r.amount) AS record_amount, r.currency AS record_currency,
       r.occurred_at AS record_at, coalesce(matched.records, 0) AS matched_records,
       d.difference IS NULL AS agrees, d.difference,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to,
       CASE WHEN i.payable > l.amount THEN 2 ELSE 1 END AS approvals_needed,
       k.first_approved_by, k.first_approved_at, w.why_not, w.why_not IS NULL AS may_decide
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.service_plans p ON p.service_plan_id = i.service_plan_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
LEFT JOIN LATERAL (
    SELECT count(*) AS records, sum(t.amount) AS amount, max(t.assigned_by) AS assigned_by
    FROM prepaid.transactions t WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched'
    HAVING count(*) > 0
) matched ON true
LEFT JOIN LATERAL (
    SELECT t.* FROM prepaid.transactions t
    WHERE t.invoice_number = i.invoice_number AND matched.records IS NULL
       OR t.invoice_id = i.invoice_id AND t.outcome = 'matched'
    ORDER BY t.status = 'Success' DESC NULLS LAST, t.occurred_at DESC NULLS LAST, t.transaction_id
    LIMIT 1
) r ON true
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN r.transaction_id IS NULL THEN 'no record from a payment provider yet'
        WHEN r.status IS DISTINCT FROM 'Success'
            THEN format('the record says %s', coalesce(r.status, 'nothing'))
        WHEN r.currency IS DISTINCT FROM i.currency
            THEN format('the record is in %s, the invoice in %s', coalesce(r.currency, 'no currency'), i.currency)
        WHEN matched.assigned_by IS NOT NULL
            THEN format('%s was paid and assigned to this invoice by %s', matched.amount, matched.assigned_by)
        WHEN coalesce(matched.amount, r.amount) IS DISTINCT FROM i.payable
            THEN format('the record is over %s, the invoice over %s', coalesce(r.amount::text, 'nothing'), i.payable)
        WHEN r.customer_ref <> c.customer_ref
            THEN format('the record names customer %s, the invoice %s', r.customer_ref, c.customer_ref)
        WHEN r.outcome <> 'matched' THEN r.outcome_reason
        ELSE (SELECT format('a later record of the same payment says %s', coalesce(t.status, 'nothing'))
              FROM prepaid.transactions m
              JOIN prepaid.transactions t
                  ON hashtextextended(t.provider_ref, 0) = hashtextextended(m.provider_ref, 0)
                 AND t.provider = m.provider AND t.provider_ref = m.provider_ref
              WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched'
                AND t.outcome IS DISTINCT FROM 'superseded' AND t.credit_note_id IS NULL
                AND t.status IS DISTINCT FROM 'Success' AND t.occurred_at >= m.occurred_at
              ORDER BY t.occurred_at DESC LIMIT 1)
    END AS difference
) d
LEFT JOIN prepaid.approval_limits l ON l.currency = i.currency
-- Why the acting person may not approve it; decide_tasks says the same. (The first of two may still
-- reject.)
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN i.status <> 'Open' THEN format('invoice %s is already %s', i.invoice_number, i.status)
        WHEN NOT EXISTS (SELECT FROM prepaid.team_members m
                         WHERE m.team = 'finance' AND m.person = prepaid.acting_person())
            THEN 'only finance decides on payments'
        WHEN k.status = 'Open' AND k.first_approved_by = prepaid.acting_person()
            THEN 'you have approved it already, as the first of two'
        ELSE (SELECT 'you ' || e.what FROM prepaid.four_eyes e
              WHERE e.task_id = k.task_id AND e.person = prepaid.acting_person() LIMIT 1)
    END AS why_not OFFSET 0
) w
WHERE k.kind = 'payment_verification' AND k.status <> 'Withdrawn';

-- What customer success needs: the plan's features to look at.
-- UPDATE … SET decision = 'passed' | 'failed', note = '…' WHERE task_id = …
CREATE VIEW prepaid.quality_checks AS
SELECT k.task_id, k.kind, k.status, k.opened_on, p.service_plan_id, c.customer_ref, p.customer_name,
       p.plan_name, p.start_date, p.end_date,
       concat_ws(', ', CASE WHEN p.quantity > 1 THEN p.quantity || ' × ' ELSE '' END || p.plan_name, (
           SELECT string_agg(CASE WHEN (a ->> 'quantity')::integer > 1
                                  THEN a ->> 'quantity' || ' × ' ELSE '' END || (a ->> 'name'),
                             ', ' ORDER BY n)
           FROM jsonb_array_elements(p.addons) WITH ORDINALITY e (a, n))) AS features,
       earlier.note AS what_failed,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to
FROM prepaid.tasks k
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.tasks earlier ON earlier.task_id = k.parent_task_id
WHERE k.kind IN ('quality_check', 'quality_follow_up') AND k.status <> 'Withdrawn';

CREATE TRIGGER decide INSTEAD OF UPDATE ON prepaid.payment_verifications
    FOR EACH ROW EXECUTE FUNCTION prepaid.decide_from_view();

CREATE TRIGGER decide INSTEAD OF UPDATE ON prepaid.quality_checks
    FOR EACH ROW EXECUTE FUNCTION prepaid.decide_from_view();

-- The sign-off pages: signing in and sessions. The pages have a database login of their own, in the
-- role desk: it may call these functions and take the role of a person, and has no other right.

-- The browser has the token; here is its SHA-256, so that nobody who reads this table has a session.
CREATE TABLE prepaid.desk_sessions (
    token_hash bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    person text NOT NULL REFERENCES prepaid.desk_accounts,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    idle_seconds integer NOT NULL CHECK (idle_seconds > 0)
);

CREATE INDEX desk_sessions_by_person ON prepaid.desk_sessions (person);

-- Clocks here are real time, never the business date: they are about access.

CREATE FUNCTION prepaid.note_access(event text, person text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prepaid.audit_log (event, entity, detail, actor, run_id)
    VALUES (event, 'person', person, prepaid.actor(), prepaid.run_id());
$$;

-- What is needed to sign somebody in; no row for a name that is nobody's. may_try is false while the
-- account is locked or disabled, or in no team.
CREATE FUNCTION prepaid.desk_account(name text)
RETURNS TABLE (person text, password_hash text, failed integer, locked_until timestamptz,
               disabled boolean, team text, may_try boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT a.person, a.password_hash, a.failed, a.locked_until, a.disabled, m.team,
           m.team IS NOT NULL AND coalesce(a.locked_until <= clock_timestamp(), true)
    FROM prepaid.desk_accounts a
    LEFT JOIN LATERAL (SELECT min(m.team) AS team FROM prepaid.team_members m
                       WHERE m.person = a.person) m ON true
    WHERE a.person = desk_account.name
$$;

-- The one person with this address, for a sign-in elsewhere (OpenID Connect); null if there is none,
-- or more than one.
CREATE FUNCTION prepaid.desk_person(address text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT min(a.person) FROM prepaid.desk_accounts a
    WHERE lower(a.email) = lower(address) AND NOT a.disabled HAVING count(*) = 1
$$;

-- Notes a wrong password. From the fifth in a row on, the account is locked for a quarter of an hour
-- after each: at most 5 + 96 guesses a day. Returns until when it is locked.
CREATE FUNCTION prepaid.desk_failed(name text) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    locked timestamptz;
BEGIN
    UPDATE prepaid.desk_accounts a
    SET failed = a.failed + 1,
        locked_until = CASE WHEN a.failed + 1 >= 5 THEN clock_timestamp() + interval '15 minutes'
                       ELSE a.locked_until END
    WHERE a.person = name
    RETURNING a.locked_until INTO locked;
    IF locked > clock_timestamp() THEN
        PERFORM prepaid.note_access('account_locked', name);
    END IF;
    RETURN locked;
END $$;

-- Opens a session for somebody whose password (or other sign-in) was right.
CREATE FUNCTION prepaid.desk_open_session(
    new_token_hash bytea, name text, idle_seconds integer, absolute_seconds integer
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    -- A wrong password at this very moment waits; a locked account stays locked.
    PERFORM FROM prepaid.desk_accounts a WHERE a.person = name FOR UPDATE;
    IF NOT coalesce((SELECT may_try FROM prepaid.desk_account(name)), false) THEN
        RAISE EXCEPTION '% cannot sign in: no account, locked, disabled or in no team', name;
    END IF;
    UPDATE prepaid.desk_accounts a SET failed = 0, locked_until = NULL
    WHERE a.person = name AND (a.failed > 0 OR a.locked_until IS NOT NULL);
    DELETE FROM prepaid.desk_sessions s
    WHERE s.person = name AND s.expires_at < clock_timestamp() - interval '30 days';
    INSERT INTO prepaid.desk_sessions (token_hash, person, expires_at, idle_seconds)
    VALUES (new_token_hash, name, clock_timestamp() + make_interval(secs => absolute_seconds),
            desk_open_session.idle_seconds);
    PERFORM prepaid.note_access('signed_in', name);
END $$;

-- Whose session it is, with the person's teams; no row when it has ended (idle, over, revoked) or the
-- person was disabled, left the team or lost the role. Asking keeps it awake.
CREATE FUNCTION prepaid.desk_session(token bytea)
RETURNS TABLE (person text, team text, teams text[])
LANGUAGE sql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    WITH seen AS (
        UPDATE prepaid.desk_sessions s SET last_seen_at = clock_timestamp()
        WHERE s.token_hash = token AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
          AND s.last_seen_at > clock_timestamp() - make_interval(secs => s.idle_seconds)
        RETURNING s.person
    )
    SELECT seen.person, min(m.team), array_agg(m.team ORDER BY m.team)
    FROM seen JOIN prepaid.team_members m ON m.person = seen.person
    GROUP BY seen.person
$$;

CREATE FUNCTION prepaid.desk_end_session(token bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    UPDATE prepaid.desk_sessions SET revoked_at = clock_timestamp()
    WHERE token_hash = token AND revoked_at IS NULL
$$;

-- Ends all sessions of a person; returns how many there were.
CREATE FUNCTION prepaid.desk_end_sessions(name text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    ended integer;
BEGIN
    UPDATE prepaid.desk_sessions s SET revoked_at = clock_timestamp()
    WHERE s.person = name AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp();
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

-- For 'prepaid user', not for the pages: a new password ends all sessions and the lock.
CREATE FUNCTION prepaid.set_password(name text, hash text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.desk_accounts AS a (person, password_hash) VALUES (name, hash)
    ON CONFLICT (person) DO UPDATE SET password_hash = hash, failed = 0, locked_until = NULL;
    PERFORM prepaid.desk_end_sessions(name);
    PERFORM prepaid.note_access('password_set', name);
END $$;

CREATE FUNCTION prepaid.set_disabled(name text, disable boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.desk_accounts AS a (person, disabled) VALUES (name, disable)
    ON CONFLICT (person) DO UPDATE SET disabled = disable, failed = 0, locked_until = NULL;
    PERFORM prepaid.desk_end_sessions(name);
    PERFORM prepaid.note_access(CASE WHEN disable THEN 'user_disabled' ELSE 'user_enabled' END, name);
END $$;

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

-- Suggestions for some records do not wait for those of all.
CREATE OR REPLACE VIEW prepaid.payment_suggestions AS
WITH parked AS NOT MATERIALIZED (
    SELECT t.* FROM prepaid.tasks k JOIN prepaid.transactions t USING (transaction_id)
    WHERE k.kind = 'payment_review' AND k.status = 'Open' AND t.outcome = 'parked'
      AND t.status = 'Success'
), candidates AS (
    SELECT t.transaction_id, i.invoice_id, NULL AS slip
    FROM parked t
    JOIN prepaid.customers c USING (customer_ref)
    JOIN prepaid.invoices i ON i.customer_id = c.customer_id AND i.status = 'Open'
    UNION ALL
    SELECT t.transaction_id, i.invoice_id, meant.slip
    FROM parked t
    CROSS JOIN LATERAL prepaid.meant_numbers(t.invoice_number) meant
    JOIN prepaid.invoices i ON prepaid.plain_number(i.invoice_number) = meant.plain AND i.status = 'Open'
)
SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number AS record_invoice_number,
       t.amount, t.currency, t.customer_ref AS record_customer_ref, t.occurred_at, t.outcome_reason,
       i.invoice_number, i.service_plan_id, c.customer_ref, c.name AS customer_name, i.issued_on,
       concat_ws('; ', 'same amount', CASE WHEN t.customer_ref = c.customer_ref THEN 'same customer' END,
                 'the number: ' || found.slip) AS because
FROM (SELECT transaction_id, invoice_id, max(slip) AS slip FROM candidates GROUP BY 1, 2) found
JOIN parked t USING (transaction_id)
JOIN prepaid.invoices i ON i.invoice_id = found.invoice_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
WHERE i.payable = t.amount AND i.currency = t.currency
  AND i.invoice_number IS DISTINCT FROM t.invoice_number
  AND NOT EXISTS (SELECT FROM prepaid.transactions m
                  WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched');

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
           CASE a.event WHEN 'hold_placed' THEN h.text END, q.note) AS what,
       1 AS place, a.audit_id AS id
FROM prepaid.audit_log a
LEFT JOIN prepaid.holds h ON a.entity = 'hold' AND h.hold_id = a.entity_id
LEFT JOIN prepaid.requests q ON a.entity = 'request' AND q.request_id = a.entity_id
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

-- What the forms of the sign-off pages call beside decide_tasks.

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

-- Gives the customer of a plan an address, for the person who is acting, of customer success: what
-- a plan that is held for want of one needs. Plans whose details were taken before keep theirs.
CREATE FUNCTION prepaid.set_customer_email(plan bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_in(ARRAY['customer_success'], 'change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not an e-mail address', address;
    END IF;
    UPDATE prepaid.customers c SET email = address
    FROM prepaid.service_plans p WHERE p.service_plan_id = plan AND c.customer_id = p.customer_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service plan %', plan;
    END IF;
END $$;

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

-- Teams are database roles without login; each person is a role of their own in one of them.
-- Roles belong to the server, not to the database: another database may have made them already.
-- What each may do is written down in docs/rights.md, and a test compares the two.

DO $$
DECLARE
    team text;
BEGIN
    FOREACH team IN ARRAY ARRAY['finance', 'customer_success', 'leadership', 'engineering', 'desk'] LOOP
        BEGIN
            -- NOINHERIT is for desk, which may take the role of a person and has none of their rights.
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', team);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA prepaid TO finance, customer_success, engineering, desk;

GRANT SELECT, UPDATE (decision, note) ON prepaid.payment_verifications TO finance;

GRANT SELECT, UPDATE (decision, note) ON prepaid.quality_checks TO customer_success;

GRANT SELECT ON prepaid.parked_payments, prepaid.approval_limits TO finance;

-- Granted again below, in the order in which a new database has it.
REVOKE SELECT ON prepaid.installation FROM engineering;

GRANT SELECT ON prepaid.installation, prepaid.desk_overview, prepaid.sign_off_times,
    prepaid.held_plans, prepaid.decisions, prepaid.plan_events, prepaid.plan_summaries,
    prepaid.task_assignments TO finance, customer_success;

GRANT SELECT ON ALL TABLES IN SCHEMA prepaid TO engineering;

-- How people sign in is nobody's to read, and only the pages' own login asks about it.
REVOKE ALL ON prepaid.desk_accounts, prepaid.desk_sessions FROM engineering;

REVOKE EXECUTE ON FUNCTION prepaid.desk_account, prepaid.desk_person, prepaid.desk_failed,
    prepaid.desk_open_session, prepaid.desk_session, prepaid.desk_end_session, prepaid.desk_end_sessions,
    prepaid.set_password, prepaid.set_disabled, prepaid.reassign_tasks FROM PUBLIC;

GRANT EXECUTE ON FUNCTION prepaid.desk_account, prepaid.desk_person, prepaid.desk_failed,
    prepaid.desk_open_session, prepaid.desk_session, prepaid.desk_end_session, prepaid.desk_end_sessions
    TO desk;

GRANT EXECUTE ON FUNCTION prepaid.reassign_tasks TO finance, customer_success;

REVOKE EXECUTE ON FUNCTION prepaid.decide_as_seen FROM PUBLIC;

GRANT EXECUTE ON FUNCTION prepaid.decide_as_seen TO finance, customer_success;

REVOKE EXECUTE ON FUNCTION prepaid.set_customer_email FROM PUBLIC;

GRANT EXECUTE ON FUNCTION prepaid.set_customer_email TO customer_success;

GRANT SELECT ON prepaid.quality_features TO customer_success;

GRANT SELECT ON prepaid.colleagues TO finance, customer_success;

-- The monthly reports are for everybody; the figures behind them are not.
GRANT USAGE ON SCHEMA revenue TO customer_success;

GRANT SELECT ON revenue.report_versions TO customer_success;

-- The owner does not need these rights, and would have to give them back to itself to change what was
-- signed or logged. (Triggers refuse it even then.)
REVOKE UPDATE, DELETE, TRUNCATE ON prepaid.sign_offs, prepaid.audit_log FROM CURRENT_USER;
