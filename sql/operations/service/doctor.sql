-- What `prepaid doctor` asks the server about itself.

-- name: durability
-- Each of these off can lose or tear what was committed: an invoice number given twice.
SELECT name FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off' ORDER BY name;

-- name: btree_gist
SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'btree_gist')
    OR EXISTS (SELECT FROM pg_extension WHERE extname = 'btree_gist');

-- name: rights
SELECT has_database_privilege(current_database(), 'CREATE') AS may_create,
       r.rolcreaterole OR r.rolsuper AS may_create_roles
FROM pg_roles r WHERE r.rolname = current_user;

-- name: teams
-- From version 16 on, CREATEROLE lets a user put people only into roles that it made itself.
SELECT string_agg(r.rolname, ', ' ORDER BY r.rolname) FROM pg_roles r
WHERE r.rolname = ANY (:teams)
  AND current_setting('server_version_num')::integer >= 160000
  AND NOT pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION');

-- name: open_to_the_public
SELECT prepaid.is_open_to_the_public();

-- name: role_makers
-- Before version 16 whoever has CREATEROLE may put anybody, themselves too, into any role but a superuser's.
SELECT string_agg(r.rolname, ', ' ORDER BY r.rolname) FROM pg_roles r
WHERE current_setting('server_version_num')::integer < 160000
  AND r.rolcreaterole AND NOT r.rolsuper AND r.rolname <> session_user;

-- name: more_than_people
-- Whose sessions would count as the pipeline's own.
SELECT string_agg(a.person, ', ' ORDER BY a.person)
FROM prepaid.desk_accounts a JOIN pg_roles r ON r.rolname = a.person
WHERE has_schema_privilege(r.oid, 'prepaid', 'CREATE') OR pg_has_role(r.oid, 'desk', 'USAGE');

-- name: data_directory
-- Empty for a user who may not see it.
SELECT (SELECT setting FROM pg_settings WHERE name = 'data_directory');

-- name: undecidable
-- Open tasks that nobody may decide, per team: which, and why.
SELECT u.team, count(*) AS tasks, min(u.task_id) AS first_task,
       EXISTS (SELECT FROM prepaid.team_members m WHERE m.team = u.team) AS has_people
FROM prepaid.tasks_nobody_may_decide u GROUP BY u.team ORDER BY u.team;
