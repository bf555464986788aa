-- Recomputes the chain with PostgreSQL's own functions alone: a function of ours in the database could
-- have been replaced by whoever changed the log.

-- name: seals
-- The seals from number :first on, up to :many of them, each against its entries and the seal before.
-- What is wrong comes back; the entries stay in the database.
SELECT s.seal_number, s.sealed_at, s.entries,
       p.seal_number IS NOT NULL OR s.seal_number = 1 AS has_predecessor,
       s.previous_hash = coalesce(p.seal_hash, decode(repeat('00', 32), 'hex')) AS is_chained,
       s.seal_hash = sha256(record_send(ROW(
           s.seal_number, s.sealed_at, s.sealed_through, s.entries,
           convert_to(s.ids::text, 'UTF8'), convert_to(s.awaited::text, 'UTF8'),
           s.entries_hash, s.digests, s.previous_hash))) AS is_itself,
       s.ids <@ span.ids AND s.awaited <@ (span.ids - s.ids) AS is_in_order,
       found.entries = s.entries AND found.entries_hash = s.entries_hash AS entries_are_theirs,
       CAST(inserted.ids AS text) AS inserted
FROM (SELECT * FROM prepaid.audit_seals WHERE seal_number >= :first
      ORDER BY seal_number LIMIT :many) s
LEFT JOIN prepaid.audit_seals p ON p.seal_number = s.seal_number - 1
CROSS JOIN LATERAL (
    SELECT coalesce(p.awaited, '{}')
           + int8multirange(int8range(p.sealed_through, s.sealed_through, '(]')) AS ids) span
CROSS JOIN LATERAL (
    SELECT count(*) AS entries, sha256(string_agg(entry.hash, '' ORDER BY entry.audit_id))
           AS entries_hash
    FROM unnest(s.ids) covered
    CROSS JOIN LATERAL (
        SELECT a.audit_id, sha256(record_send(ROW(
            a.audit_id, a.at, convert_to(a.event, 'UTF8'), a.service_plan_id,
            convert_to(a.entity, 'UTF8'), a.entity_id, convert_to(a.before, 'UTF8'),
            convert_to(a.after, 'UTF8'), convert_to(a.detail, 'UTF8'), convert_to(a.actor, 'UTF8'),
            convert_to(a.run_id, 'UTF8'), a.as_of))) AS hash
        FROM prepaid.audit_log a
        WHERE a.audit_id >= lower(covered) AND a.audit_id < upper(covered)
        ORDER BY a.audit_id) entry) found
-- Where the chain says that no entry can be any more: neither sealed nor awaited.
CROSS JOIN LATERAL (
    SELECT coalesce(range_agg(int8range(a.audit_id, a.audit_id, '[]')), '{}') AS ids
    FROM unnest(span.ids - s.ids - s.awaited) closed
    CROSS JOIN LATERAL (
        SELECT a.audit_id FROM prepaid.audit_log a
        WHERE a.audit_id >= coalesce(lower(closed), CAST('-9223372036854775808' AS bigint))
          AND a.audit_id < upper(closed)
        OFFSET 0) a) inserted
ORDER BY s.seal_number;

-- name: entries
-- The entries of one seal that are not there any more (missing), or are not what was sealed.
SELECT expected.audit_id, a.audit_id IS NULL AS missing
FROM (SELECT s.digests, id.audit_id, row_number() OVER (ORDER BY id.audit_id) AS place
      FROM prepaid.audit_seals s
      CROSS JOIN LATERAL unnest(s.ids) covered
      CROSS JOIN LATERAL generate_series(lower(covered), upper(covered) - 1) id (audit_id)
      WHERE s.seal_number = :seal_number) expected
LEFT JOIN prepaid.audit_log a USING (audit_id)
WHERE a.audit_id IS NULL
   OR substr(expected.digests, CAST(8 * expected.place - 7 AS integer), 8) <> substr(
        sha256(record_send(ROW(
            a.audit_id, a.at, convert_to(a.event, 'UTF8'), a.service_plan_id,
            convert_to(a.entity, 'UTF8'), a.entity_id, convert_to(a.before, 'UTF8'),
            convert_to(a.after, 'UTF8'), convert_to(a.detail, 'UTF8'), convert_to(a.actor, 'UTF8'),
            convert_to(a.run_id, 'UTF8'), a.as_of))), 1, 8)
ORDER BY expected.audit_id;

-- name: never_given_out
-- Ids that the log's own counter has not reached.
SELECT a.audit_id FROM prepaid.audit_log a
WHERE a.audit_id > (SELECT q.last_value FROM prepaid.audit_log_audit_id_seq q) ORDER BY 1;

-- name: unsealed
SELECT (SELECT count(*) FROM prepaid.audit_log a WHERE a.audit_id > coalesce(last.sealed_through, 0))
     + (SELECT count(*) FROM unnest(last.awaited) span
        JOIN prepaid.audit_log a ON a.audit_id >= lower(span) AND a.audit_id < upper(span)) AS entries
FROM (VALUES (1)) always
LEFT JOIN LATERAL (SELECT * FROM prepaid.audit_seals ORDER BY seal_number DESC LIMIT 1) last ON true;

-- name: seal_hash
SELECT encode(seal_hash, 'hex') FROM prepaid.audit_seals WHERE seal_number = :seal_number;

-- name: newest
-- The newest seal and the first one, which says of which log it is.
SELECT newest.seal_number, newest.sealed_at, newest.sealed_through,
       encode(newest.seal_hash, 'hex') AS seal_hash, encode(first.seal_hash, 'hex') AS first_hash
FROM (SELECT * FROM prepaid.audit_seals ORDER BY seal_number DESC LIMIT 1) newest
LEFT JOIN prepaid.audit_seals first ON first.seal_number = 1;

-- name: of_plan
-- The entries of one plan, each with the seal that it is in (none yet, or none because it was put in
-- afterwards) and whether it is what was sealed.
SELECT a.audit_id, sealed.seal_number,
       sealed.seal_number IS NULL AND a.audit_id <= coalesce(last.sealed_through, 0)
           AND NOT last.awaited @> a.audit_id AS was_put_in,
       sealed.seal_hash = sha256(record_send(ROW(
           sealed.seal_number, sealed.sealed_at, sealed.sealed_through, sealed.entries,
           convert_to(sealed.ids::text, 'UTF8'), convert_to(sealed.awaited::text, 'UTF8'),
           sealed.entries_hash, sealed.digests, sealed.previous_hash)))
       AND substr(sealed.digests, CAST(8 * place.before + 1 AS integer), 8) = substr(
           sha256(record_send(ROW(
               a.audit_id, a.at, convert_to(a.event, 'UTF8'), a.service_plan_id,
               convert_to(a.entity, 'UTF8'), a.entity_id, convert_to(a.before, 'UTF8'),
               convert_to(a.after, 'UTF8'), convert_to(a.detail, 'UTF8'),
               convert_to(a.actor, 'UTF8'), convert_to(a.run_id, 'UTF8'), a.as_of))), 1, 8)
           AS is_as_sealed
FROM prepaid.audit_log a
LEFT JOIN LATERAL (
    SELECT * FROM prepaid.audit_seals ORDER BY seal_number DESC LIMIT 1) last ON true
LEFT JOIN LATERAL (
    SELECT s.* FROM prepaid.audit_seals s
    WHERE s.sealed_through >= a.audit_id AND s.ids @> a.audit_id
    ORDER BY s.sealed_through, s.seal_number LIMIT 1) sealed ON true
LEFT JOIN LATERAL (
    SELECT sum(least(upper(span), a.audit_id) - lower(span)) AS before
    FROM unnest(sealed.ids) span WHERE lower(span) <= a.audit_id) place ON true
WHERE a.service_plan_id = :plan ORDER BY a.audit_id;
