-- What nobody needs any more: Dagster's ended runs with their events, finished backfills, and sessions
-- of the desk that are long over. Dagster 1.13 itself deletes ticks and nothing else.

-- name: old_runs
-- One portion of ended runs, from the oldest on. A run stays whole, whatever its age, while it made what
-- is the latest of a month's figures or of their checks: it is where they come from. asset_keys names
-- the latest run of each asset.
WITH old AS MATERIALIZED (
    SELECT r.id, r.run_id FROM dagster.runs r
    WHERE r.id > :after AND r.status IN ('SUCCESS', 'FAILURE', 'CANCELED')
      AND coalesce(r.end_time, extract(epoch FROM r.update_timestamp AT TIME ZONE 'UTC'))
          < extract(epoch FROM CAST(:before AS timestamptz))
    ORDER BY r.id LIMIT :limit
    FOR UPDATE SKIP LOCKED
), kept AS MATERIALIZED (
    SELECT e.run_id FROM old JOIN dagster.event_logs e USING (run_id)
    WHERE e.dagster_event_type = 'ASSET_MATERIALIZATION' AND e.partition IS NOT NULL
      AND NOT EXISTS (SELECT FROM dagster.event_logs later
                      WHERE later.asset_key = e.asset_key AND later.partition = e.partition
                        AND later.dagster_event_type = e.dagster_event_type AND later.id > e.id)
    UNION
    SELECT e.run_id FROM old JOIN dagster.event_logs e USING (run_id)
    WHERE e.dagster_event_type = 'ASSET_MATERIALIZATION' AND e.partition IS NULL
      AND NOT EXISTS (SELECT FROM dagster.event_logs later
                      WHERE later.asset_key = e.asset_key
                        AND later.dagster_event_type = e.dagster_event_type AND later.id > e.id)
    UNION
    SELECT c.run_id FROM old JOIN dagster.asset_check_executions c USING (run_id)
    WHERE NOT EXISTS (SELECT FROM dagster.asset_check_executions later
                      WHERE (later.asset_key, later.check_name) = (c.asset_key, c.check_name)
                        AND later.partition IS NOT DISTINCT FROM c.partition AND later.id > c.id)
    UNION
    SELECT k.last_run_id FROM dagster.asset_keys k WHERE k.last_run_id IS NOT NULL
), gone AS MATERIALIZED (
    SELECT run_id FROM old EXCEPT SELECT run_id FROM kept
), tags AS (
    DELETE FROM dagster.asset_event_tags t USING gone JOIN dagster.event_logs e USING (run_id)
    WHERE t.event_id = e.id
), checks AS (
    DELETE FROM dagster.asset_check_executions c USING gone WHERE c.run_id = gone.run_id
), events AS (
    DELETE FROM dagster.event_logs e USING gone WHERE e.run_id = gone.run_id
    RETURNING e.id
), runs AS (
    DELETE FROM dagster.runs r USING gone WHERE r.run_id = gone.run_id
)
SELECT (SELECT max(id) FROM old) AS last, (SELECT count(*) FROM events) AS events,
       coalesce((SELECT array_agg(CAST(run_id AS text)) FROM gone), '{}') AS run_ids;

-- name: backfills
WITH gone AS (
    DELETE FROM dagster.bulk_actions b
    WHERE b.status IN ('COMPLETED', 'COMPLETED_SUCCESS', 'COMPLETED_FAILED', 'FAILED', 'CANCELED')
      AND b.timestamp AT TIME ZONE 'UTC' < CAST(:before AS timestamptz)
      AND NOT EXISTS (SELECT FROM dagster.runs r WHERE r.backfill_id = b.key)
    RETURNING b.key
), tags AS (
    DELETE FROM dagster.backfill_tags t USING gone WHERE t.backfill_id = gone.key
)
SELECT count(*) FROM gone;

-- name: sessions
WITH operators AS (
    DELETE FROM prepaid.operator_sessions WHERE expires_at < CAST(:before AS timestamptz)
)
DELETE FROM prepaid.desk_sessions WHERE expires_at < CAST(:before AS timestamptz);
