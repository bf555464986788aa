-- Who is the only one of a kind on this database, such as its daemon, and which processes live. A lease
-- is in force until its time is over or the holder's session is gone, whichever comes first: a process
-- that was killed loses its session at once, one whose machine vanished is waited for a minute. Another
-- role's session shows its pid and not since when.

-- name: is_there
-- Not before the migration that brings it; for a login without rights it is not there either.
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'prepaid' AND c.relname = 'locks' AND has_schema_privilege(n.oid, 'USAGE')
      AND has_table_privilege(c.oid, 'SELECT'));

-- name: take
INSERT INTO prepaid.locks AS l (name, holder, session_pid, session_started, taken_at, leased_until)
SELECT :name, :holder, a.pid, a.backend_start, clock_timestamp(),
       clock_timestamp() + make_interval(secs => :seconds)
FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, session_pid = excluded.session_pid,
    session_started = excluded.session_started, taken_at = excluded.taken_at,
    leased_until = excluded.leased_until
WHERE l.leased_until < clock_timestamp() OR NOT EXISTS (
    SELECT FROM pg_stat_activity s WHERE s.pid = l.session_pid
      AND coalesce(s.backend_start = l.session_started, true))
RETURNING l.name;

-- name: renew
-- No row: another one has it.
UPDATE prepaid.locks l
SET leased_until = clock_timestamp() + make_interval(secs => :seconds), holder = :holder
FROM pg_stat_activity a
WHERE l.name = :name AND a.pid = pg_backend_pid()
  AND (l.session_pid, l.session_started) = (a.pid, a.backend_start)
RETURNING l.name;

-- name: give_back
DELETE FROM prepaid.locks l USING pg_stat_activity a
WHERE l.name = :name AND a.pid = pg_backend_pid()
  AND (l.session_pid, l.session_started) = (a.pid, a.backend_start);

-- name: holder
SELECT l.holder, l.taken_at FROM prepaid.locks l
WHERE l.name = :name AND l.leased_until > clock_timestamp() AND EXISTS (
    SELECT FROM pg_stat_activity s WHERE s.pid = l.session_pid
      AND coalesce(s.backend_start = l.session_started, true));

-- name: forget
-- What was over long ago.
DELETE FROM prepaid.locks WHERE leased_until < clock_timestamp() - interval '1 day';
