-- How much waits, since when, and how long sign-offs take.

-- name: waiting
SELECT team, kind, open, oldest, overdue, mine FROM prepaid.desk_overview ORDER BY team, kind;

-- name: held
SELECT count(*) AS held, min(held_at) AS oldest FROM prepaid.held_plans;

-- name: times
SELECT kind, decided, extract(epoch FROM median) / 3600 AS median, extract(epoch FROM p90) / 3600 AS p90
FROM prepaid.sign_off_times WHERE month = date_trunc('month', CAST(:today AS date)) ORDER BY kind;
