-- The locks of the pipeline. They are rows of a table that people cannot reach: an advisory lock is a
-- number, and every login of the server can hold it for ever. Here is also who keeps the pipeline
-- waiting.

-- Two kinds of rows. What only one transaction may do at a time has a row that is always there, and
-- that it locks until its end (take_lock). What only one process may do, or that it lives, is a row of
-- its own, which says who has it and until when (sql/database/leases.sql).
CREATE TABLE prepaid.locks (
    name text PRIMARY KEY,
    holder text,
    -- The session of the holder: when it is gone, so is the holder, however long the lease is.
    session_pid integer,
    session_started timestamptz,
    taken_at timestamptz,
    leased_until timestamptz,
    CHECK (num_nulls(holder, session_pid, session_started, taken_at, leased_until) IN (0, 5))
);
INSERT INTO prepaid.locks (name) VALUES
    ('audit seals'), ('import'), ('monthly figures'), ('overdue tasks'), ('payment matching');

-- Waits for a lock and keeps it until the transaction ends.
CREATE FUNCTION prepaid.take_lock(wanted text) RETURNS void
LANGUAGE plpgsql SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM FROM prepaid.locks l WHERE l.name = wanted FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no lock %', wanted;
    END IF;
END $$;

-- Open transactions of others that keep, or kept, the pipeline from what it wanted. A transaction is
-- named by its session and its number there; the row goes when it has ended.
CREATE TABLE prepaid.blocking_sessions (
    pid integer NOT NULL,
    virtual_transaction text NOT NULL,
    person text NOT NULL,
    -- What the pipeline waited for last, such as service_plans.
    waited_for text NOT NULL,
    blocked_since timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Why the session could not be ended.
    refusal text,
    PRIMARY KEY (pid, virtual_transaction)
);

REVOKE EXECUTE ON FUNCTION prepaid.take_lock FROM PUBLIC;
