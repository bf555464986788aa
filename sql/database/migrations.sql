-- Around the migrations: who may run them, one at a time, and which of them have run.

-- name: lock
-- Held until the transaction ends: a second upgrade waits, and then finds nothing to do.
SELECT pg_advisory_xact_lock(hashtextextended('prepaid migrations', 0));

-- name: make_schema
CREATE SCHEMA IF NOT EXISTS prepaid;

-- name: is_versioned
SELECT to_regclass('prepaid.alembic_version') IS NOT NULL;

-- name: applied
SELECT version_num FROM prepaid.alembic_version;

-- name: write_timezone
-- A zone that this server does not know fails here, before it is written.
UPDATE prepaid.installation SET timezone = :timezone
WHERE timezone <> :timezone AND now() AT TIME ZONE :timezone IS NOT NULL;

-- name: timezone
SELECT timezone FROM prepaid.installation;
