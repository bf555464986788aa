-- Dagster keeps its runs and events in a schema of its own beside the product's.

-- name: lock
-- Two commands at once: CREATE SCHEMA IF NOT EXISTS can fail in the one that comes second.
SELECT pg_advisory_xact_lock(hashtextextended('prepaid dagster schema', 0));

-- name: make
CREATE SCHEMA IF NOT EXISTS dagster;
