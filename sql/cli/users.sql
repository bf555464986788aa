-- People are database roles; the statements that make them are in people.py (names cannot be parameters).

-- name: role
SELECT rolsuper, rolcanlogin FROM pg_roles WHERE rolname = :name;

-- name: note_added
INSERT INTO prepaid.audit_log (event, entity, after, detail, actor)
VALUES ('user_added', 'person', :team, :name, prepaid.actor());
