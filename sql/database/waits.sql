-- Who keeps the pipeline waiting. Nothing here reads a table that a person could lock: pg_locks and the
-- roles of sessions are everybody's to see.

-- name: be_patient
-- Of the session that looks: it must not itself wait for long.
SELECT set_config('lock_timeout', '5s', false);

-- name: is_there
-- Not before the migration that brings it; for a login without rights it is not there either.
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'prepaid' AND c.relname = 'blocking_sessions' AND has_schema_privilege(n.oid, 'USAGE')
      AND has_table_privilege(c.oid, 'SELECT'));

-- name: look
-- From our own sessions and the desk's that wait, over those they wait for, to those who wait for nobody
-- and have a transaction open. Of a wait for a row the lock on its place says in which table it is.
WITH RECURSIVE locks AS MATERIALIZED (
    SELECT * FROM pg_locks
), sessions AS MATERIALIZED (
    SELECT a.pid, a.datid, a.usename, r.rolsuper, a.datname = current_database() AND (
               a.usename = session_user OR NOT r.rolsuper AND EXISTS (
                   SELECT FROM pg_roles desk
                   WHERE desk.rolname = 'desk' AND pg_has_role(r.oid, desk.oid, 'MEMBER'))) AS is_ours
    FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
), waiting AS MATERIALIZED (
    SELECT w.pid, coalesce(min(w.waitstart), clock_timestamp()) AS since,
           coalesce(max(CAST(c.relname AS text)), 'a lock') AS waited_for
    FROM locks w
    JOIN sessions s ON s.pid = w.pid AND s.is_ours
    LEFT JOIN locks place ON place.pid = w.pid AND place.database = s.datid
        AND (place.locktype = 'tuple' OR place.locktype = 'relation' AND NOT place.granted)
    LEFT JOIN pg_class c ON c.oid = place.relation
    WHERE NOT w.granted
    GROUP BY w.pid
), chain (waiter, pid) AS (
    SELECT w.pid, b.pid FROM waiting w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) b (pid)
    UNION
    SELECT c.waiter, b.pid FROM chain c CROSS JOIN LATERAL unnest(pg_blocking_pids(c.pid)) b (pid)
)
SELECT s.pid, own.virtualtransaction AS virtual_transaction, CAST(s.usename AS text) AS person,
       s.usename <> session_user AND NOT s.rolsuper AS may_end,
       max(w.waited_for) AS waited_for,
       CAST(extract(epoch FROM clock_timestamp() - min(w.since)) AS float8) AS seconds
FROM chain c
JOIN waiting w ON w.pid = c.waiter
JOIN sessions s ON s.pid = c.pid
JOIN locks own ON own.pid = c.pid AND own.locktype = 'virtualxid' AND own.granted
    AND own.virtualxid = own.virtualtransaction
WHERE NOT EXISTS (SELECT FROM locks n WHERE n.pid = c.pid AND NOT n.granted)
GROUP BY s.pid, own.virtualtransaction, s.usename, s.rolsuper ORDER BY s.pid;

-- name: others_write
-- Whether another login has a transaction open that has locked more than it reads.
SELECT EXISTS (
    SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'relation' AND l.granted AND l.mode <> 'AccessShareLock'
      AND a.datname = current_database() AND a.usename <> session_user);

-- name: note
-- That a session blocks lasts as long as its transaction, also while the pipeline goes on with other rows.
-- Not from the beginning of our wait: that may have been for others, who had the lock before.
INSERT INTO prepaid.blocking_sessions AS b (pid, virtual_transaction, person, waited_for, blocked_since)
VALUES (:pid, :virtual_transaction, :person, :waited_for, clock_timestamp())
ON CONFLICT (pid, virtual_transaction)
DO UPDATE SET last_seen_at = clock_timestamp(), waited_for = excluded.waited_for;

-- name: noted
SELECT b.pid, b.virtual_transaction, b.person, b.waited_for, b.refusal, true AS may_end,
       CAST(extract(epoch FROM clock_timestamp() - b.blocked_since) AS float8) AS seconds,
       EXISTS (SELECT FROM pg_locks own WHERE own.pid = b.pid AND own.locktype = 'virtualxid'
               AND own.virtualtransaction = b.virtual_transaction) AS is_open
FROM prepaid.blocking_sessions b ORDER BY b.blocked_since, b.pid;

-- name: forget
DELETE FROM prepaid.blocking_sessions
WHERE pid = :pid AND virtual_transaction = :virtual_transaction
RETURNING pid;

-- name: take_role
-- As that person their sessions may be ended, also by an owner who is no superuser.
SELECT set_config('role', :person, true);

-- name: end
-- Only while it is that transaction: a pid is given to others.
SELECT bool_or(pg_terminate_backend(own.pid)) FROM pg_locks own
WHERE own.locktype = 'virtualxid' AND own.pid = :pid
  AND own.virtualtransaction = :virtual_transaction;

-- name: tell
INSERT INTO prepaid.audit_log (event, entity, detail, actor)
VALUES ('blocking_session_ended', 'person', format(
    'The session of %s (server process %s) was ended: its open transaction had kept the pipeline from %s '
    'for %s s', CAST(:person AS text), CAST(:pid AS integer), CAST(:waited_for AS text),
    CAST(:seconds AS integer)), 'pipeline');

-- name: refuse
UPDATE prepaid.blocking_sessions SET refusal = :refusal
WHERE pid = :pid AND virtual_transaction = :virtual_transaction;
