-- Who counts as a person of a team. Teams are database roles; each person is a role of their own in
-- one of them.

-- The teams, and what each may do beside reading what it was given rights to and deciding its own tasks
-- (91_rights.sql, prepaid.team_of). The words are those of the messages: 'somebody may not …'.
CREATE TABLE prepaid.teams (
    team text PRIMARY KEY,
    may text[] NOT NULL
);
INSERT INTO prepaid.teams (team, may) VALUES
    ('finance', ARRAY['assign payments', 'void invoices', 'cancel plans', 'change plans',
        'release holds', 'release holds about money']),
    ('customer_success', ARRAY['cancel plans', 'change plans', 'release holds', 'resend emails',
        'settle emails', 'change a customer''s address', 'erase a customer']),
    ('leadership', ARRAY[]::text[]),
    ('engineering', ARRAY['see all tasks', 'release holds', 'resend emails', 'settle emails',
        'erase a customer']);

-- Who is a person of this database, how they sign in at the pages, and where mail reaches them. Nobody
-- reads the table: the pages ask functions (70_desk_sign_in.sql). The role of a team holds its rights, and
-- an account is what they can be used by here (prepaid.let_in): without either somebody can do nothing.
CREATE TABLE prepaid.desk_accounts (
    person text PRIMARY KEY,
    -- argon2id, in its own encoded form; null for those who sign in elsewhere or only decide by SQL.
    password_hash text CHECK (password_hash LIKE '$argon2id$%'),
    failed integer NOT NULL DEFAULT 0 CHECK (failed >= 0),
    locked_until timestamptz,
    -- Who left: can neither sign in nor decide, in no way; what they decided stays.
    disabled boolean NOT NULL DEFAULT false,
    email text CHECK (email LIKE '_%@_%' AND email !~ '[[:cntrl:][:space:]]'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The teams that the person was put into here. The roles of teams and people belong to the server:
    -- another installation on it can put somebody into a team as well, and that does not count here.
    teams text[] NOT NULL DEFAULT '{}'
);

-- The people of each team: who is in it, and was put into it here. Not a superuser, not the pipeline's
-- own user and not a team's role itself, whatever they are members of: a decision has one person's name.
CREATE VIEW prepaid.team_members AS
SELECT r.rolname AS person, t.team, a.email, t.may
FROM prepaid.teams t
JOIN prepaid.desk_accounts a ON t.team = ANY (a.teams) AND NOT a.disabled
JOIN pg_roles r ON r.rolname = a.person AND pg_has_role(r.oid, t.team::name, 'USAGE')
WHERE NOT r.rolsuper
  AND r.rolname <> 'desk' AND r.rolname NOT IN (SELECT team FROM prepaid.teams)
  AND r.oid <> (SELECT relowner FROM pg_class WHERE oid = 'prepaid.desk_accounts'::regclass);

-- For functions that act with the owner's rights: others may not read team_members.
CREATE FUNCTION prepaid.is_in_team(name text, VARIADIC teams text[]) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM prepaid.team_members m
                   WHERE m.person = is_in_team.name AND m.team = ANY (teams));
END $$;

CREATE FUNCTION prepaid.teams_that_may(what text) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT array(SELECT team FROM prepaid.teams WHERE what = ANY (may) ORDER BY team);
$$;

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
CREATE FUNCTION prepaid.person_who_may(what text) RETURNS text LANGUAGE plpgsql AS $$
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

-- The same for what takes a note that says why.
CREATE FUNCTION prepaid.person_who_says_why(what text, why text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    person text := prepaid.person_who_may(what);
BEGIN
    IF coalesce(why, '') !~ '\S' THEN
        RAISE EXCEPTION 'to % needs a note that says why', what;
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
