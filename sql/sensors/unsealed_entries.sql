-- Entries that have been waiting for their seal for longer than a batch or a form takes.
SELECT a.audit_id FROM (
    SELECT e.audit_id, e.at FROM prepaid.audit_log e
    WHERE e.audit_id > coalesce((SELECT max(sealed_through) FROM prepaid.audit_seals), 0)
    UNION ALL
    SELECT e.audit_id, e.at
    FROM (SELECT awaited FROM prepaid.audit_seals ORDER BY seal_number DESC LIMIT 1) last
    CROSS JOIN LATERAL unnest(last.awaited) span
    JOIN prepaid.audit_log e ON e.audit_id >= lower(span) AND e.audit_id < upper(span)) a
WHERE a.at < clock_timestamp() - interval '5 minutes'
LIMIT :limit;
