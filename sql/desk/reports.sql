-- The published monthly reports.

-- name: months
SELECT v.month, v.version, v.cut_off, v.note, v.published_at
FROM revenue.report_versions v ORDER BY v.month DESC, v.version DESC LIMIT 500;
