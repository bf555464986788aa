-- Figures that are late, each in a sentence.

-- name: open_months
-- Of months that are computed every hour, from the first term on.
SELECT format('the figures of %s are those of %s UTC', to_char(m.month, 'YYYY-MM'),
              to_char(f.published_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')) AS sentence
FROM (SELECT CAST(:month AS date) AS month) m
JOIN revenue.months f USING (month)
WHERE f.published_at < CAST(:computed_after AS timestamptz)
UNION ALL
SELECT format('there are no figures for %s', to_char(m.month, 'YYYY-MM'))
FROM (SELECT CAST(:month AS date) AS month) m
WHERE NOT EXISTS (SELECT FROM revenue.months f WHERE f.month = m.month)
  AND EXISTS (SELECT FROM prepaid.service_plans WHERE activated_at < CAST(:computed_after AS timestamptz));
