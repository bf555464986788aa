-- What the rules of a run came to, kept for the reports.

-- name: forget
-- Kept as long as a month has its figures from the run; the stored reports have them anyway.
DELETE FROM revenue.check_results r
WHERE r.checked_at < clock_timestamp() - interval '7 days'
  AND NOT EXISTS (SELECT FROM revenue.months m WHERE m.run_id = r.run_id)
  AND (r.stage <> 'inputs' OR r.checked_at < (
      SELECT max(checked_at) FROM revenue.check_results WHERE stage = 'inputs') - interval '1 day');

-- name: keep
INSERT INTO revenue.check_results
    (run_id, stage, asset, rule, place, is_warning, passed, failing, as_of)
SELECT :run_id, :stage, r.asset, r.rule, r.place, r.is_warning, r.passed, r.failing, :as_of
FROM jsonb_to_recordset(CAST(:results AS jsonb)) r (
    asset text, rule text, place integer, is_warning boolean, passed boolean, failing bigint)
ON CONFLICT (run_id, stage, asset, rule) DO UPDATE
    SET passed = excluded.passed, failing = excluded.failing, is_warning = excluded.is_warning,
        place = excluded.place, as_of = excluded.as_of, checked_at = clock_timestamp();
