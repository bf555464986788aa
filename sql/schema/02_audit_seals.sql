-- The audit log is hash-chained by seals: after a batch, a job or a decision one seal over the entries
-- that are committed and not sealed yet, with the hash of the seal before it. Writing an entry waits for
-- nobody. docs/audit.md describes the format; sql/audit/verify.sql recomputes it.

CREATE TABLE prepaid.audit_seals (
    seal_number bigint PRIMARY KEY CHECK (seal_number > 0),
    sealed_at timestamptz NOT NULL,
    -- The highest id that this seal or one before it has looked at.
    sealed_through bigint NOT NULL,
    entries integer NOT NULL CHECK (entries > 0),
    -- The ids of the entries, in whose order they are hashed. Ids below the sealed_through of the seal
    -- before are entries that committed later than others with higher ids.
    ids int8multirange NOT NULL,
    -- The ids up to sealed_through that transactions may still write. Every other one that is not in
    -- a seal stays empty: an entry there was inserted afterwards.
    awaited int8multirange NOT NULL,
    -- sha256 over the entries' sha256 hashes; and the first 8 bytes of each of these, by which a
    -- changed entry is named.
    entries_hash bytea NOT NULL CHECK (length(entries_hash) = 32),
    digests bytea NOT NULL CHECK (length(digests) = 8 * entries),
    previous_hash bytea NOT NULL CHECK (length(previous_hash) = 32),
    seal_hash bytea NOT NULL CHECK (length(seal_hash) = 32)
);
-- Hashes cannot be compressed; uncompressed, eight bytes are read without the others.
ALTER TABLE prepaid.audit_seals ALTER COLUMN digests SET STORAGE EXTERNAL;
-- In which seal an entry is: the first that has looked as far, or a later one.
CREATE INDEX audit_seals_by_sealed_through ON prepaid.audit_seals (sealed_through, seal_number);
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
ALTER TABLE prepaid.audit_seals ENABLE ALWAYS TRIGGER audit_seals_append_only;

-- Which transactions may still write the awaited ids. It is no part of the chain: after a restart or
-- in another cluster none of them exists any more, and the ids are given up by the next seal.
CREATE TABLE prepaid.audit_awaited (
    ids int8multirange NOT NULL,
    writers text[] NOT NULL
);

-- Seals up to 50,000 entries and returns how many; null when somebody else is sealing at this moment
-- (or waits, when asked to). One seal per call, so that the memory of both sealing and verifying has
-- an upper end. To be called in a transaction of its own, which reads what is committed.
--
-- Ids are taken before the commit, so a lower one may still be missing. The order of the four reads is
-- what makes sure that none is skipped: whoever has taken an id up to sealed_through had locked the
-- table for writing before the first read, and is either among the writers of the second or has ended
-- before the third, which then sees its entry unless it was rolled back.
CREATE FUNCTION prepaid.seal_audit_log(wait boolean DEFAULT false)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = prepaid, pg_temp SET enable_seqscan TO off AS $$
DECLARE
    last prepaid.audit_seals;
    made prepaid.audit_seals;
    writing text[];
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the audit log is sealed by READ COMMITTED transactions only';
    END IF;
    IF wait THEN
        PERFORM take_lock('audit seals');
    ELSE
        PERFORM FROM locks l WHERE l.name = 'audit seals' FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    SELECT * INTO last FROM audit_seals s ORDER BY s.seal_number DESC LIMIT 1;
    last.sealed_through := coalesce(last.sealed_through, 0);
    -- An id that was never given out would leave all others below it.
    SELECT coalesce(max(next.audit_id), last.sealed_through) INTO made.sealed_through
    FROM (SELECT a.audit_id FROM audit_log a
          WHERE a.audit_id > last.sealed_through
            AND a.audit_id <= (SELECT q.last_value FROM audit_log_audit_id_seq q)
          ORDER BY a.audit_id LIMIT 50000) next;

    SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{}') INTO writing
    FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.relation = 'prepaid.audit_log'::regclass
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.mode = 'RowExclusiveLock' AND l.pid IS DISTINCT FROM pg_backend_pid();

    SELECT count(*), range_agg(int8range(entry.audit_id, entry.audit_id, '[]')),
           sha256(string_agg(entry.hash, '' ORDER BY entry.audit_id)),
           string_agg(substr(entry.hash, 1, 8), '' ORDER BY entry.audit_id)
    INTO made.entries, made.ids, made.entries_hash, made.digests
    FROM unnest(coalesce(last.awaited, '{}')
                + int8multirange(int8range(last.sealed_through, made.sealed_through, '(]'))) span
    CROSS JOIN LATERAL (
        SELECT a.audit_id, sha256(record_send(ROW(
            a.audit_id, a.at, convert_to(a.event, 'UTF8'), a.service_plan_id,
            convert_to(a.entity, 'UTF8'), a.entity_id, convert_to(a.before, 'UTF8'),
            convert_to(a.after, 'UTF8'), convert_to(a.detail, 'UTF8'), convert_to(a.actor, 'UTF8'),
            convert_to(a.run_id, 'UTF8'), a.as_of))) AS hash
        FROM audit_log a
        WHERE a.audit_id >= lower(span) AND a.audit_id < upper(span)
        ORDER BY a.audit_id) entry;
    IF made.entries = 0 THEN
        RETURN 0;
    END IF;

    DELETE FROM audit_awaited w WHERE NOT w.writers && writing;
    UPDATE audit_awaited w SET ids = w.ids - made.ids WHERE w.ids && made.ids;
    INSERT INTO audit_awaited (ids, writers)
    SELECT gaps.ids, writing
    FROM (SELECT int8multirange(int8range(last.sealed_through, made.sealed_through, '(]'))
                 - made.ids AS ids) gaps
    WHERE NOT isempty(gaps.ids) AND cardinality(writing) > 0;

    made.seal_number := coalesce(last.seal_number, 0) + 1;
    made.sealed_at := clock_timestamp();
    made.awaited := coalesce((SELECT range_agg(w.ids) FROM audit_awaited w), '{}');
    made.previous_hash := coalesce(last.seal_hash, decode(repeat('00', 32), 'hex'));
    made.seal_hash := sha256(record_send(ROW(
        made.seal_number, made.sealed_at, made.sealed_through, made.entries,
        convert_to(made.ids::text, 'UTF8'), convert_to(made.awaited::text, 'UTF8'),
        made.entries_hash, made.digests, made.previous_hash)));
    INSERT INTO audit_seals VALUES (made.*);
    RETURN made.entries;
END $$;
