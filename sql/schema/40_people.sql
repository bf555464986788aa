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

-- How a person signs in at the pages, and where mail reaches them. Nobody reads the table: the pages
-- ask functions (70_desk_sign_in.sql). The role is what holds rights; an account without one can do
-- nothing.
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
SELECT r.rolname AS person, t.team, a.email, t.may
FROM prepaid.teams t
JOIN pg_roles r ON pg_has_role(r.oid, t.team::name, 'USAGE')
LEFT JOIN prepaid.desk_accounts a ON a.person = r.rolname
WHERE NOT r.rolsuper AND a.disabled IS NOT TRUE
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

-- The acting person, if one of their teams may do that; the audit log then names them, also in a session
-- of their own, where prepaid.actor could say anything.
CREATE FUNCTION prepaid.person_who_may(what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    person text := prepaid.acting_person();
    teams text[] := prepaid.teams_that_may(what);
BEGIN
    IF NOT prepaid.is_in_team(person, VARIADIC teams) THEN
        RAISE EXCEPTION '% may not %: not in %', person, what, array_to_string(teams, ' or ');
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
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
