-- Sessions of people's own say nothing of themselves, membership in a team belongs to the database, who is
-- disabled reads nothing, and customer success reads no notes of finance's.

-- Whether the session was opened by the pipeline's own user, who alone may make tables here, or by the
-- desk, and not by a person under a login of theirs. What counts is who logged in: SET ROLE changes
-- nothing about it. (No subquery: the planner puts the expression in the place of each call.)
CREATE FUNCTION prepaid.is_own_session() RETURNS boolean LANGUAGE sql STABLE RETURN
    has_schema_privilege(session_user, 'prepaid'::regnamespace, 'CREATE')
    OR pg_has_role(session_user, 'desk', 'USAGE');

-- What a session says of itself: actor, run_id or as_of. Anybody can set prepaid.*; it counts in our
-- own sessions only. All that is read in these settings by what is in the schema is read here.
CREATE FUNCTION prepaid.context(setting text) RETURNS text LANGUAGE sql STABLE RETURN
    CASE WHEN prepaid.is_own_session()
        THEN nullif(current_setting('prepaid.' || setting, true), '') END;

-- Who did it: a person under their own role, else the job that the pipeline names in prepaid.actor.
CREATE OR REPLACE FUNCTION prepaid.actor() RETURNS text LANGUAGE sql STABLE RETURN
    CASE current_setting('role') WHEN 'none'
        THEN coalesce(prepaid.context('actor'), session_user::text)
        ELSE current_setting('role') END;

CREATE OR REPLACE FUNCTION prepaid.run_id() RETURNS text LANGUAGE sql STABLE RETURN prepaid.context('run_id');

CREATE OR REPLACE FUNCTION prepaid.as_of() RETURNS date LANGUAGE sql STABLE RETURN prepaid.context('as_of')::date;

-- Today where the installation is, by the clock at this moment. (A person can keep a transaction, and
-- even a statement, open for days: now() would be the day on which it began.)
CREATE FUNCTION prepaid.date_by_the_clock() RETURNS date LANGUAGE sql STABLE RETURN
    prepaid.business_date(clock_timestamp());

-- The business date of what is being done: in our own sessions the one that was given, else today where
-- the installation is (never current_date: that is the day where the session happens to be).
CREATE OR REPLACE FUNCTION prepaid.today() RETURNS date LANGUAGE sql STABLE RETURN
    CASE WHEN prepaid.is_own_session() THEN coalesce(prepaid.as_of(), prepaid.business_date(now()))
        ELSE prepaid.date_by_the_clock() END;

-- The teams of those who have an account are the ones that they are in at this moment. Who is in a team
-- and has no account is listed by 'prepaid migrate', and confirmed with 'prepaid user adopt'.
ALTER TABLE prepaid.desk_accounts ADD COLUMN teams text[] NOT NULL DEFAULT '{}';
UPDATE prepaid.desk_accounts a SET teams = ARRAY(
    SELECT t.team FROM prepaid.teams t JOIN pg_roles r ON r.rolname = a.person
    WHERE pg_has_role(r.oid, t.team::name, 'USAGE') ORDER BY t.team);

-- The people of each team: who is in it, and was put into it here. Not a superuser, not the pipeline's
-- own user and not a team's role itself, whatever they are members of: a decision has one person's name.
CREATE OR REPLACE VIEW prepaid.team_members AS
SELECT r.rolname AS person, t.team, a.email, t.may
FROM prepaid.teams t
JOIN prepaid.desk_accounts a ON t.team = ANY (a.teams) AND NOT a.disabled
JOIN pg_roles r ON r.rolname = a.person AND pg_has_role(r.oid, t.team::name, 'USAGE')
WHERE NOT r.rolsuper
  AND r.rolname <> 'desk' AND r.rolname NOT IN (SELECT team FROM prepaid.teams)
  AND r.oid <> (SELECT relowner FROM pg_class WHERE oid = 'prepaid.desk_accounts'::regclass);

-- Whether who asks may read payment records, and with them what was written about payments.
CREATE FUNCTION prepaid.reads_about_money() RETURNS boolean LANGUAGE sql STABLE RETURN
    has_table_privilege(current_user, 'prepaid.transactions'::regclass, 'SELECT');

-- Who acts sees what is there now. In a transaction of another isolation level, which they can begin days
-- before, they would be judged by what was there then.
CREATE FUNCTION prepaid.require_current_sight() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'this takes a READ COMMITTED transaction: in one of isolation level % it would be '
            'judged by what was there when it began', upper(current_setting('transaction_isolation'));
    END IF;
END $$;

-- The acting person, if one of their teams may do that.
CREATE OR REPLACE FUNCTION prepaid.person_who_may(what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    person text := prepaid.acting_person();
    teams text[] := prepaid.teams_that_may(what);
BEGIN
    PERFORM prepaid.require_current_sight();
    IF NOT prepaid.is_in_team(person, VARIADIC teams) THEN
        RAISE EXCEPTION '% may not %: not in %', person, what, array_to_string(teams, ' or ');
    END IF;
    RETURN person;
END $$;

-- A role's rights are of use where its owner comes in. Teams are shared by all databases of the server
-- and have no entry to any: people have it, and the desk's login, each to its own database. A person
-- enters the schemas of their teams, and loses them when disabled; open sessions notice with their next
-- statement. CONNECT is the database owner's to give: where that is somebody else, GRANT says so, and does
-- nothing.
CREATE FUNCTION prepaid.let_in(name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    account prepaid.desk_accounts;
BEGIN
    -- Two at once would change the same row of the catalogue, and one of them fail.
    LOCK TABLE prepaid.desk_accounts IN SHARE ROW EXCLUSIVE MODE;
    SELECT * INTO account FROM prepaid.desk_accounts WHERE person = name;
    IF account.disabled IS DISTINCT FROM false OR account.teams = '{}' THEN
        RETURN;
    END IF;
    IF NOT has_schema_privilege(name, 'revenue', 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA revenue TO %I', name);
    END IF;
    IF account.teams <> '{leadership}' AND NOT has_schema_privilege(name, 'prepaid', 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA prepaid TO %I', name);
    END IF;
    PERFORM prepaid.let_connect(name);
END $$;

-- The desk's login has entry to this database only; the role desk has none.
CREATE FUNCTION prepaid.let_desk_in(login text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE prepaid.desk_accounts IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = login AND NOT r.rolsuper
                     AND pg_has_role(r.oid, 'desk', 'USAGE')) THEN
        RETURN;
    END IF;
    IF NOT has_schema_privilege(login, 'prepaid', 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA prepaid TO %I', login);
    END IF;
    PERFORM prepaid.let_connect(login);
END $$;

CREATE FUNCTION prepaid.let_connect(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) a
        WHERE d.datname = current_database() AND a.privilege_type = 'CONNECT'
          AND a.grantee = (SELECT r.oid FROM pg_roles r WHERE r.rolname = name))
    THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
    END IF;
END $$;

CREATE FUNCTION prepaid.shut_out(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE prepaid.desk_accounts IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
        RETURN;
    END IF;
    EXECUTE format('REVOKE USAGE ON SCHEMA prepaid, revenue FROM %I', name);
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM %I', current_database(), name);
END $$;

-- Takes CONNECT from everybody who has it only because PostgreSQL gives it to all, and gives it to whoever
-- has rights here by name (somebody who evaluates the figures, say). Returns these; null: the database
-- belongs to somebody else, who alone can do it.
CREATE FUNCTION prepaid.close_to_the_public() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    kept text[];
BEGIN
    LOCK TABLE prepaid.desk_accounts IN SHARE ROW EXCLUSIVE MODE;
    IF NOT prepaid.is_open_to_the_public() THEN
        RETURN '{}';
    END IF;
    kept := ARRAY(
        SELECT DISTINCT r.rolname::text FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
        WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'a'
          AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND r.rolname !~ '^pg_' AND r.rolname <> 'desk' AND NOT r.rolsuper
          AND r.rolname NOT IN (SELECT team FROM prepaid.teams)
          AND r.rolname NOT IN (SELECT person FROM prepaid.desk_accounts)
        ORDER BY 1);
    PERFORM prepaid.let_connect(name) FROM unnest(kept) name;
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database());
    RETURN CASE WHEN NOT prepaid.is_open_to_the_public() THEN kept END;
END $$;

CREATE FUNCTION prepaid.is_open_to_the_public() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM pg_database d CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
        WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'CONNECT')
$$;

-- A sign-off is made by the person whose name it has, and for their own team: not by the pipeline,
-- and not by the owner of the tables in somebody's name.
CREATE OR REPLACE FUNCTION prepaid.only_people_sign() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    PERFORM prepaid.require_current_sight();
    SELECT n.decided_by, k.task_id, k.assigned_role INTO wrong
    FROM new_rows n LEFT JOIN prepaid.tasks k USING (task_id)
    WHERE n.decided_by <> prepaid.acting_person() OR k.assigned_role NOT IN (
        SELECT m.team FROM prepaid.team_members m WHERE m.person = prepaid.acting_person())
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'no sign-off of task % by %: only somebody in % can sign it, under their own name',
            wrong.task_id, wrong.decided_by, wrong.assigned_role;
    END IF;
    RETURN NULL;
END $$;

-- Plans that wait for a person to put something right. The text says what can be done. What finance wrote
-- about a payment is for those who may read payments: others read what is done about such a hold.
CREATE OR REPLACE VIEW prepaid.held_plans AS
SELECT h.hold_id, h.service_plan_id, p.status, c.customer_ref, c.name AS customer_name, l.name AS plan_name,
       i.invoice_number, h.reason_code,
       CASE WHEN r.about_money AND NOT (SELECT prepaid.reads_about_money()) THEN r.advice ELSE h.text END
           AS text,
       h.held_at,
       (SELECT string_agg(t.team, ', ' ORDER BY t.team) FROM prepaid.teams t
        WHERE CASE WHEN r.about_money THEN 'release holds about money' ELSE 'release holds' END
            = ANY (t.may)) AS released_by_team
FROM prepaid.holds h
JOIN prepaid.hold_reasons r USING (reason_code)
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.plans l ON l.plan_id = p.plan_id
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE h.released_at IS NULL;

-- Who is disabled has no entry to the database any more, nor who has it by them. (accounts.py then ends the
-- sessions that they have open with SQL tools, which can read nothing from here on.)
CREATE OR REPLACE FUNCTION prepaid.set_disabled(name text, disable boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE prepaid.desk_accounts IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO prepaid.desk_accounts AS a (person, disabled) VALUES (name, disable)
    ON CONFLICT (person) DO UPDATE SET disabled = disable, failed = 0, locked_until = NULL;
    PERFORM prepaid.desk_end_sessions(name);
    IF disable THEN
        PERFORM prepaid.shut_out(name);
    ELSE
        PERFORM prepaid.let_in(name);
    END IF;
    PERFORM prepaid.note_access(CASE WHEN disable THEN 'user_disabled' ELSE 'user_enabled' END, name);
END $$;

-- Open tasks per team and kind, for the acting person's own teams (some see all).
CREATE OR REPLACE VIEW prepaid.desk_overview AS
SELECT k.assigned_role AS team, k.kind, count(*) AS open, min(k.opened_on) AS oldest,
       count(*) FILTER (WHERE k.due_on < (SELECT prepaid.today())) AS overdue,
       count(*) FILTER (WHERE k.assigned_to = prepaid.acting_person()) AS mine
FROM prepaid.tasks k
WHERE k.status = 'Open' AND EXISTS (
    SELECT FROM prepaid.team_members m
    WHERE m.person = prepaid.acting_person()
      AND (m.team = k.assigned_role OR 'see all tasks' = ANY (m.may)))
GROUP BY k.assigned_role, k.kind;

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
CREATE OR REPLACE VIEW prepaid.plan_events AS
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

REVOKE EXECUTE ON FUNCTION prepaid.latest_decisions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.latest_decisions TO finance, customer_success, engineering;

-- Entry to the schemas is a person's, and the desk's login's: 'prepaid migrate' gives it to those who have an
-- account (prepaid.let_in).
REVOKE USAGE ON SCHEMA prepaid, revenue FROM finance, customer_success, leadership, engineering, desk;

REVOKE SELECT ON prepaid.tasks, prepaid.holds, prepaid.task_assignments FROM customer_success;

-- Without the notes: what finance wrote about payments is among them.
GRANT SELECT (task_id, kind, service_plan_id, invoice_id, transaction_id, parent_task_id, assigned_role,
              status, opened_on, opened_at, decision, decided_by, decided_at, closed_at, credit_note_id,
              first_approved_by, first_approved_at, due_on, assigned_to)
    ON prepaid.tasks TO customer_success;
GRANT SELECT (hold_id, service_plan_id, reason_code, held_at, released_at, released_by)
    ON prepaid.holds TO customer_success;
GRANT SELECT (assignment_id, task_id, assigned_to, assigned_by, assigned_at)
    ON prepaid.task_assignments TO customer_success;

-- What a team may read of tables that it may not read itself, it reads through these. As barriers they show
-- a condition of the reader's, which may tell what it is asked about, no row that they leave out.
ALTER VIEW prepaid.team_members SET (security_barrier);
ALTER VIEW prepaid.payment_verifications SET (security_barrier);
ALTER VIEW prepaid.quality_checks SET (security_barrier);
ALTER VIEW prepaid.price_concessions SET (security_barrier);
ALTER VIEW prepaid.terms_below_list SET (security_barrier);
ALTER VIEW prepaid.held_plans SET (security_barrier);
ALTER VIEW prepaid.undelivered_mails SET (security_barrier);
ALTER VIEW prepaid.desk_overview SET (security_barrier);
ALTER VIEW prepaid.sign_off_times SET (security_barrier);
ALTER VIEW prepaid.decisions SET (security_barrier);
ALTER VIEW prepaid.plan_events SET (security_barrier);
ALTER VIEW prepaid.plan_summaries SET (security_barrier);
ALTER VIEW prepaid.quality_features SET (security_barrier);
ALTER VIEW prepaid.colleagues SET (security_barrier);

-- What people do in sessions of their own is written down in the same words, whatever a session sets.
ALTER FUNCTION prepaid.assign_record SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.cancel SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.change_plan SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.correct_email_address SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.decide_as_seen SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.decide_tasks SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.erase_customer SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.reassign_tasks SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.release_holds SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.resend_emails SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.set_customer_email SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.settle_emails SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.void_invoice SET datestyle TO 'ISO, YMD';
