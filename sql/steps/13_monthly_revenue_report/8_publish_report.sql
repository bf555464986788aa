-- Publishing of step 13: a preliminary version gives way to its successor; a closed one stays.
-- :versions is a list of {"month", "version", "cut_off", "note", "fingerprint", "computed_at",
-- "document"} for the months that changed.

-- name: drop_preliminary
DELETE FROM revenue.report_versions
WHERE version = 0 AND month IN (
    SELECT month FROM jsonb_to_recordset(CAST(:versions AS jsonb)) v (month date));

-- name: versions
INSERT INTO revenue.report_versions
    (month, version, cut_off, note, run_id, fingerprint, computed_at, document)
SELECT month, version, cut_off, note, :run_id, fingerprint, computed_at, document
FROM jsonb_to_recordset(CAST(:versions AS jsonb)) v (
    month date, version integer, cut_off date, note text, fingerprint text, computed_at timestamptz,
    document jsonb);

-- name: reports
INSERT INTO revenue.monthly_report
    (month, currency, version, new_plans, renewals, reactivations, opening_mrr, mrr, active_plans,
     customers, figures, published_at, changes)
SELECT s.month, s.currency, v.version, s.new_plans, s.renewals, s.reactivations, s.opening_mrr,
       s.mrr, s.active_plans, s.customers, s.figures, v.published_at, s.changes
FROM revenue.monthly_report_staging s
JOIN revenue.report_versions v ON v.month = s.month AND v.run_id = :run_id
JOIN jsonb_to_recordset(CAST(:versions AS jsonb)) c (month date, version integer)
    ON c.month = v.month AND c.version = v.version
WHERE s.run_id = :run_id;

-- name: mails
-- In the same transaction, so that a version is mailed if it was published, and once. History that is
-- computed in hindsight is no news; a correction is, to whoever had the version before.
INSERT INTO prepaid.emails (template, occasion, recipient)
SELECT 'monthly_report', format('%s version %s', to_char(v.month, 'YYYY-MM'), v.version), r.recipient
FROM jsonb_to_recordset(CAST(:versions AS jsonb)) v (month date, version integer, is_news boolean)
CROSS JOIN unnest(CAST(:recipients AS text[])) r (recipient)
WHERE v.version > 0 AND (v.is_news OR EXISTS (
    SELECT FROM prepaid.emails e
    WHERE e.service_plan_id IS NULL AND e.template = 'monthly_report' AND e.recipient = r.recipient
      AND e.occasion LIKE to_char(v.month, 'YYYY-MM') || ' version %'))
ORDER BY v.month, v.version, r.recipient
ON CONFLICT DO NOTHING;
