-- What a restore does beside pg_restore.

-- name: is_empty
SELECT to_regnamespace('prepaid') IS NULL AND to_regnamespace('revenue') IS NULL;

-- name: role_exists
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :name);

-- name: create_role
-- Without a login and password: those are nobody's to copy.
DO $$ BEGIN
    EXECUTE format('CREATE ROLE %I NOLOGIN %s', current_setting('prepaid.role'),
                   CASE current_setting('prepaid.inherits') WHEN 'true' THEN 'INHERIT' ELSE 'NOINHERIT' END);
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- another restore on this server has just made it
END $$;

-- name: grant_team
DO $$ BEGIN
    EXECUTE format('GRANT %I TO %I', current_setting('prepaid.team'), current_setting('prepaid.role'));
END $$;

-- name: set
SELECT set_config('prepaid.role', :name, true), set_config('prepaid.inherits', :inherits, true),
       set_config('prepaid.team', :team, true);

-- name: as_it_was
-- Nobody works on a copy: what was leased when the backup was made counts as leased.
UPDATE prepaid.batches SET leased_until = clock_timestamp() + interval '1 hour'
WHERE finished_at IS NULL;
