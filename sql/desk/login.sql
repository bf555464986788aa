-- The desk's own login where none is given, and what a login must not be able to do.

-- name: asked
-- The name of a role cannot be a parameter.
SELECT set_config('prepaid.desk_login', :name, true), set_config('prepaid.desk_verifier', :verifier, true);

-- name: make
DO $$
DECLARE
    login text := current_setting('prepaid.desk_login');
    verifier text := current_setting('prepaid.desk_verifier');
BEGIN
    -- Two that start at the same moment: the second finds the role.
    BEGIN
        EXECUTE format('CREATE ROLE %I LOGIN', login);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    -- A restored backup brings it without a login.
    IF NOT (SELECT rolcanlogin FROM pg_roles WHERE rolname = login) THEN
        EXECUTE format('ALTER ROLE %I LOGIN', login);
    END IF;
    IF NOT pg_has_role(login, 'desk', 'MEMBER') THEN
        EXECUTE format('GRANT desk TO %I', login);
    END IF;
    IF verifier <> '' THEN
        EXECUTE format('ALTER ROLE %I PASSWORD %L', login, verifier);
    END IF;
END $$;

-- name: let_in
-- Into this database; one that is nobody's, or not the desk's, is not let in, and then told so.
SELECT prepaid.let_desk_in(:name);

-- name: rights
-- Who is not in the role desk may not even ask what there is in the schema.
SELECT session_user::text AS name, r.rolsuper AS is_superuser,
       pg_has_role(session_user, 'desk', 'USAGE') AS is_desk,
       CASE WHEN pg_has_role(session_user, 'desk', 'USAGE') THEN
           has_function_privilege(session_user, 'prepaid.decide_tasks(bigint[],text,text)', 'EXECUTE')
           OR has_function_privilege(
               session_user, 'prepaid.decide_as_seen(bigint[],bigint[],text,text,boolean)', 'EXECUTE')
           OR has_function_privilege(session_user, 'prepaid.release_holds(bigint,text)', 'EXECUTE')
       END AS may_decide,
       CASE WHEN pg_has_role(session_user, 'desk', 'USAGE') THEN
           has_table_privilege(session_user, 'prepaid.tasks', 'INSERT, UPDATE, DELETE')
           OR has_table_privilege(session_user, 'prepaid.sign_offs', 'INSERT, UPDATE, DELETE')
       END AS may_write
FROM pg_roles r WHERE r.rolname = session_user;
