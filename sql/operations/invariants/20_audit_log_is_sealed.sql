-- The audit log is sealed: no entry has been waiting for its seal for more than a day.
SELECT format('entry %s of %s is in no seal; the next batch or "prepaid audit seal" seals it',
              a.audit_id, a.at) AS finding
FROM (VALUES (1)) always
LEFT JOIN LATERAL (SELECT * FROM prepaid.audit_seals ORDER BY seal_number DESC LIMIT 1) last ON true
CROSS JOIN LATERAL (
    SELECT e.audit_id, e.at FROM prepaid.audit_log e
    WHERE e.audit_id > coalesce(last.sealed_through, 0)
    UNION ALL
    SELECT e.audit_id, e.at FROM unnest(last.awaited) span
    JOIN prepaid.audit_log e ON e.audit_id >= lower(span) AND e.audit_id < upper(span)) a
WHERE a.at < clock_timestamp() - interval '1 day'
ORDER BY a.audit_id LIMIT 20;
