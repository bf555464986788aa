-- People are database roles; the statements that make them are in people.py, as a name of a role
-- cannot be a parameter.

-- name: role
SELECT rolsuper, rolname = session_user AS is_own, pg_has_role(oid, :team, 'MEMBER') AS in_team
FROM pg_roles WHERE rolname = :name;

-- name: account
-- The account exists from the first day on; an address that is not given stays.
INSERT INTO prepaid.desk_accounts AS a (person, email) VALUES (:name, CAST(:email AS text))
ON CONFLICT (person) DO UPDATE SET email = excluded.email
WHERE excluded.email IS NOT NULL AND excluded.email IS DISTINCT FROM a.email;

-- name: accounts_for_all
-- People who were added before there were accounts.
INSERT INTO prepaid.desk_accounts (person)
SELECT DISTINCT a.detail FROM prepaid.audit_log a JOIN pg_roles r ON r.rolname = a.detail
WHERE a.event = 'user_added' ON CONFLICT (person) DO NOTHING;

-- name: beyond_the_desk
-- People of this database whose role the pages cannot take yet, and that we may grant.
SELECT DISTINCT r.rolname FROM prepaid.audit_log a JOIN pg_roles r ON r.rolname = a.detail
WHERE a.event = 'user_added' AND NOT pg_has_role('desk', r.oid, 'MEMBER')
  AND pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION');

-- name: is_person
-- A decision is a person's: not a team's, not the database owner's, and 'none' is no role at all.
SELECT EXISTS (
    SELECT FROM pg_roles r
    WHERE r.rolname = :name AND NOT r.rolsuper AND r.rolname <> ALL (CAST(:teams AS text[]))
      AND EXISTS (SELECT FROM unnest(CAST(:teams AS text[])) team
                  WHERE pg_has_role(r.oid, team, 'MEMBER')));

-- name: note_added
INSERT INTO prepaid.audit_log (event, entity, after, detail, actor)
VALUES ('user_added', 'person', :team, :name, prepaid.actor());

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
JOIN unnest(CAST(:teams AS text[])) team ON pg_has_role(r.oid, CAST(team AS name), 'USAGE')
JOIN prepaid.desk_accounts a ON a.person = r.rolname
WHERE NOT r.rolsuper
GROUP BY r.rolname, a.person ORDER BY r.rolname;
