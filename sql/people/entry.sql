-- Whom the database lets in: its people, and who they are beside.

-- name: lock
-- Whoever makes, disables or lets in somebody: the next one waits (prepaid.let_in).
LOCK TABLE prepaid.desk_accounts IN SHARE ROW EXCLUSIVE MODE;

-- name: close_to_the_public
SELECT prepaid.close_to_the_public();

-- name: may_close
SELECT pg_has_role(session_user, d.datdba, 'USAGE') FROM pg_database d WHERE d.datname = current_database();

-- name: let_everybody_in
SELECT prepaid.let_in(a.person) FROM prepaid.desk_accounts a JOIN pg_roles r ON r.rolname = a.person
ORDER BY a.person;

-- name: accounts_for_all
-- People who were added before there were accounts.
INSERT INTO prepaid.desk_accounts (person, teams)
SELECT a.detail, array_agg(DISTINCT a.after) FROM prepaid.audit_log a JOIN pg_roles r ON r.rolname = a.detail
WHERE a.event = 'user_added' GROUP BY a.detail ON CONFLICT (person) DO NOTHING;

-- name: beyond_us
-- Of :names (null: all people) those whose role the pipeline's own user, or the desk, cannot take yet.
-- (From 16 on a role can be somebody's who may give it and not take it.)
SELECT r.rolname AS name, NOT pg_has_role(session_user, r.oid, how.to_take) AS own,
       NOT pg_has_role('desk', r.oid, how.to_take) AS desk
FROM prepaid.desk_accounts a JOIN pg_roles r ON r.rolname = a.person
CROSS JOIN (SELECT CASE WHEN current_setting('server_version_num')::integer >= 160000
                        THEN 'SET' ELSE 'MEMBER' END AS to_take) how
WHERE (CAST(:names AS text[]) IS NULL OR a.person = ANY (:names))
  AND NOT (pg_has_role(session_user, r.oid, how.to_take) AND pg_has_role('desk', r.oid, how.to_take))
ORDER BY 1;

-- name: strangers
-- Who is in a team on this server, and was not put into it here.
SELECT r.rolname AS name, string_agg(t.team, ', ' ORDER BY t.team) AS teams
FROM pg_roles r
JOIN prepaid.teams t ON pg_has_role(r.oid, t.team::name, 'USAGE')
LEFT JOIN prepaid.desk_accounts a ON a.person = r.rolname
WHERE NOT r.rolsuper AND r.rolname <> session_user AND r.rolname <> 'desk'
  AND r.rolname NOT IN (SELECT team FROM prepaid.teams)
  AND NOT coalesce(t.team = ANY (a.teams), false)
GROUP BY r.rolname ORDER BY r.rolname;

-- name: open_sessions
-- In this database, of a login that is the person's or came in as them; not those of other people, of the
-- pipeline's own user and of the desk, whatever roles they may take.
SELECT a.pid, r.rolname AS login
FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
LEFT JOIN prepaid.desk_accounts other ON other.person = r.rolname AND other.person <> :name
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
  AND NOT r.rolsuper AND pg_has_role(r.oid, CAST(:name AS name), 'MEMBER') AND other.person IS NULL
  AND NOT has_schema_privilege(r.oid, 'prepaid', 'CREATE') AND NOT pg_has_role(r.oid, 'desk', 'MEMBER')
ORDER BY a.pid;

-- name: end_session
-- Unless it has ended and its number is another's by now.
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.pid = :pid AND a.usename = :login;
