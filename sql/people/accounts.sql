-- People are database roles; the statements that make them are in people.py, as a name of a role
-- cannot be a parameter.

-- name: role
SELECT r.rolsuper, r.rolname = session_user AS is_own, pg_has_role(r.oid, :team, 'MEMBER') AS in_team,
       coalesce(:team = ANY (a.teams), false) AS put_there
FROM pg_roles r LEFT JOIN prepaid.desk_accounts a ON a.person = r.rolname
WHERE r.rolname = :name;

-- name: account
-- The account exists from the first day on; an address that is not given stays.
INSERT INTO prepaid.desk_accounts AS a (person, email, teams)
VALUES (:name, CAST(:email AS text), CAST(:teams AS text[]))
ON CONFLICT (person) DO UPDATE SET email = coalesce(excluded.email, a.email),
    teams = ARRAY(SELECT DISTINCT unnest(a.teams || excluded.teams) ORDER BY 1)
WHERE coalesce(excluded.email, a.email) IS DISTINCT FROM a.email OR NOT a.teams @> excluded.teams;

-- name: let_in
SELECT prepaid.let_in(:name);

-- name: standing
-- Who somebody is here. A decision is a person's: not a team's, not the database owner's, and 'none' is no
-- role at all.
SELECT CASE WHEN r.rolname = session_user THEN 'own'
            WHEN r.rolsuper OR r.rolname = ANY (CAST(:teams AS text[])) OR member.teams = '{}' THEN 'nobody'
            WHEN NOT coalesce(a.teams && member.teams, false) THEN 'stranger'
            WHEN a.disabled THEN 'disabled' ELSE 'person' END AS standing, member.teams,
       pg_has_role(session_user, r.oid, CASE WHEN current_setting('server_version_num')::integer >= 160000
                                             THEN 'SET' ELSE 'MEMBER' END) AS may_be_taken
FROM pg_roles r
LEFT JOIN prepaid.desk_accounts a ON a.person = r.rolname
CROSS JOIN LATERAL (SELECT ARRAY(SELECT team FROM unnest(CAST(:teams AS text[])) team
                                 WHERE pg_has_role(r.oid, team, 'MEMBER') ORDER BY team) AS teams) member
WHERE r.rolname = :name;

-- name: who_may
-- The teams for what a person wants to do, and whether it is one of theirs.
SELECT who.teams, EXISTS (SELECT FROM prepaid.team_members m
                          WHERE m.person = :person AND m.team = ANY (who.teams)) AS may
FROM (SELECT CASE CAST(:what AS text)
    WHEN 'decide on payments' THEN ARRAY[prepaid.team_of('payment_verification')]
    WHEN 'decide on quality checks' THEN ARRAY[prepaid.team_of('quality_check')]
    WHEN 'hand over tasks' THEN ARRAY[prepaid.team_of('payment_verification'), prepaid.team_of('quality_check')]
    ELSE prepaid.teams_that_may(:what) END AS teams) who;

-- name: note
INSERT INTO prepaid.audit_log (event, entity, after, detail, actor)
VALUES (:event, 'person', array_to_string(CAST(:teams AS text[]), ', '), :name, prepaid.actor());

-- name: set_password
SELECT prepaid.set_password(:name, :password_hash);

-- name: sign_out
SELECT prepaid.desk_end_sessions(:name);

-- name: set_disabled
SELECT prepaid.set_disabled(:name, :disabled);

-- name: people
SELECT r.rolname AS name, string_agg(team, ', ' ORDER BY team) AS teams, a.email,
       CASE WHEN a.disabled THEN 'disabled'
            WHEN a.locked_until > clock_timestamp() THEN 'locked until ' || to_char(a.locked_until, 'YYYY-MM-DD HH24:MI')
            WHEN a.password_hash IS NULL THEN 'no password' ELSE 'may sign in' END AS account
FROM pg_roles r
JOIN prepaid.desk_accounts a ON a.person = r.rolname
JOIN unnest(CAST(:teams AS text[])) team
    ON team = ANY (a.teams) AND pg_has_role(r.oid, CAST(team AS name), 'USAGE')
WHERE NOT r.rolsuper
GROUP BY r.rolname, a.person ORDER BY r.rolname;
