-- Signs of life that Dagster's daemons write every half minute, one row per kind of daemon. Dagster
-- writes the time in UTC, without a zone.

-- name: is_there
SELECT to_regclass('dagster.daemon_heartbeats') IS NOT NULL;

-- name: fresh
-- Of daemons other than the one that asks (null: of any).
SELECT daemon_id, extract(epoch FROM clock_timestamp() - max(timestamp AT TIME ZONE 'UTC'))::float8 AS seconds
FROM dagster.daemon_heartbeats
WHERE timestamp AT TIME ZONE 'UTC' > clock_timestamp() - make_interval(secs => :seconds)
  AND daemon_id IS DISTINCT FROM :own
GROUP BY daemon_id ORDER BY 2 LIMIT 1;
