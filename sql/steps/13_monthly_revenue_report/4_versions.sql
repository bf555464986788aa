-- Step 13: the versions that stand, which the new figures are compared with.

-- name: versions
-- What stands: the preliminary version (0) or all closed ones, oldest first.
SELECT v.month, v.version, v.cut_off, v.note, v.published_at, v.fingerprint, v.computed_at, v.document
FROM revenue.report_versions v
WHERE v.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
ORDER BY v.month, v.version;

-- name: reports
SELECT r.month, r.version, r.currency, r.figures
FROM revenue.monthly_report r
WHERE r.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
ORDER BY r.month, r.version, r.customers DESC, r.currency;
