-- Months whose reports are closed, and those that have to be.

-- name: closed_months
-- The first and the last closed month whose figures are of :as_of or earlier; null without any.
SELECT min(m.month) AS first, max(m.month) AS last
FROM revenue.months m
WHERE m.as_of <= CAST(:as_of AS date)
  AND EXISTS (SELECT FROM revenue.report_versions v WHERE v.month = m.month AND v.version > 0);

-- name: due_months
-- Months from the first term on that have ended, their days of grace too, and have no closed version yet.
SELECT m::date AS month
FROM (SELECT min(start_date) AS first_start FROM prepaid.service_plans
      WHERE activated_on IS NOT NULL) s
-- Without terms first_start is null, and there is no month.
CROSS JOIN generate_series(
    date_trunc('month', first_start::timestamp),
    CAST(:last_month AS timestamp), interval '1 month') m
WHERE m >= CAST(:first_month AS timestamp)
  AND NOT EXISTS (
    SELECT FROM revenue.report_versions v WHERE v.month = m::date AND v.version > 0)
ORDER BY 1;
