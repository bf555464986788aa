-- Around the migrations: who may run them, one at a time, and which of them have run.

-- name: is_versioned
SELECT to_regclass('prepaid.alembic_version') IS NOT NULL;

-- name: make_schema
-- Whoever comes second waits here until the first has committed, and then fails: it exists.
CREATE SCHEMA IF NOT EXISTS prepaid;

-- name: make_versions
-- As Alembic makes it.
CREATE TABLE IF NOT EXISTS prepaid.alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- name: lock
-- The one table that is there before prepaid.locks is, which nobody but the owner can lock like this:
-- until the transaction ends. Others may read it. A second upgrade waits, and then finds nothing to do.
LOCK TABLE prepaid.alembic_version IN EXCLUSIVE MODE;

-- name: applied
SELECT version_num FROM prepaid.alembic_version;

-- name: write_timezone
-- A zone that this server does not know fails here, before it is written.
UPDATE prepaid.installation SET timezone = :timezone
WHERE timezone <> :timezone AND now() AT TIME ZONE :timezone IS NOT NULL;

-- name: timezone
SELECT timezone FROM prepaid.installation;

-- name: encoding
SELECT current_setting('server_encoding');
