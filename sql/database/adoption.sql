-- A database at 0006 becomes one of release 0.1.0 (prepaid_pipeline/database/adoption.py).

-- name: put_prepaid_aside
-- Until the savepoint is rolled back; nobody else sees it.
ALTER SCHEMA prepaid RENAME TO prepaid_at_0006;

-- name: put_revenue_aside
ALTER SCHEMA revenue RENAME TO revenue_at_0006;

-- name: stamp
UPDATE prepaid.alembic_version SET version_num = :release;
