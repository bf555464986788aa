-- At most one `prepaid up` and one daemon per database: two daemons would start every run twice. A
-- lock belongs to a session, so it is gone as soon as its holder is, whatever ended it.

-- name: take
SELECT pg_try_advisory_lock(hashtextextended(:lock, 0));

-- name: sign
SELECT set_config('application_name', :name, false);

-- name: holder
-- Another role's session shows no name without pg_read_all_stats.
SELECT coalesce(nullif(a.application_name, ''), 'session ' || l.pid) AS name, a.backend_start
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended(:lock, 0);

-- name: ping
SELECT 1;
