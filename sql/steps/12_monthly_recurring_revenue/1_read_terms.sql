-- Step 12, before anything else: the terms are read, once, whatever the number of months. All figures
-- are made from what this leaves in temporary tables of the transaction:
--   terms_read          one row per term that was activated by :as_of and began before the range's end,
--                       or was activated before the end of its days of grace
--   terms_grouped       the same by the months (1, 2, … of the range) of start, end and activation
--   changes_by_country  by how much each customer's MRR in each country changed in a month, and the MRR
--                       after that
--   customer_changes    the same over all countries
-- A term brings revenue from start_date to the day before end_date, once it is activated; a start or
-- an end after :until (the range's last day, or the cut-off if that is earlier) is not looked at yet.
-- A term that was cut short has the day of the cut as its end_date; with no day left (start_date =
-- end_date) what it adds and takes back are on one day.

-- name: stage_months
INSERT INTO revenue.months_staging (run_id, month, as_of)
SELECT :run_id, m::date, CAST(:as_of AS date)
FROM generate_series(
    CAST(:first_month AS timestamp), CAST(:last_month AS timestamp), interval '1 month') m;

-- name: read_terms
-- country: where the customer was when the term was invoiced or imported.
CREATE TEMPORARY TABLE terms_read ON COMMIT DROP AS
SELECT service_plan_id, subscription_id, previous_plan_id, customer_id, currency,
       coalesce(country, '') AS country, plan_id, kind, status, origin, start_date, end_date,
       full_end_date, activated_on, term_days, monthly_amount, net_amount
FROM prepaid.service_plans
WHERE activated_on <= CAST(:as_of AS date)
  AND (start_date < CAST(:last_month AS date) + interval '1 month'
       -- What was paid in the range, or followed within its days of grace a term that ended in it.
       OR activated_on < CAST(:last_month AS date) + make_interval(
           months => 1, days => (SELECT grace_days FROM prepaid.installation)));

-- name: fewer_samples
-- Temporary tables have no statistics before ANALYZE. 3,000 rows of them tell enough, and cost a
-- fifth of the usual 30,000.
SELECT set_config('default_statistics_target', '10', true);

-- name: analyze_terms
ANALYZE pg_temp.terms_read;

-- name: group_terms
-- A month is the number of its place in the range: 0 is before it; one more than there are months is
-- after :until, but in the last month; two more is later still. Terms of a plan, country and kind with
-- the same months are one row from here on. One that was cancelled before its start, although paid in
-- advance, never began. counted_…: the range's last day and the range as a whole, by the dates alone,
-- for the control.
CREATE TEMPORARY TABLE terms_grouped ON COMMIT DROP AS
WITH range AS MATERIALIZED (
    SELECT array_agg(month ORDER BY month) || ARRAY[CAST(:until AS date) + 1,
               (CAST(:last_month AS date) + interval '1 month')::date] AS days
    FROM revenue.months_staging WHERE run_id = :run_id
)
SELECT currency, country, plan_id, kind,
       width_bucket(start_date, (SELECT days FROM range)) AS starts_in,
       width_bucket(end_date, (SELECT days FROM range)) AS ends_in,
       width_bucket(greatest(start_date, activated_on), (SELECT days FROM range)) AS begins_in,
       count(*) AS plans, sum(monthly_amount) AS monthly_amount,
       count(*) FILTER (WHERE end_date > start_date OR activated_on >= start_date) AS begun,
       sum(net_amount) FILTER (WHERE end_date > start_date OR activated_on >= start_date)
           AS net_amount,
       count(*) FILTER (WHERE start_date <= CAST(:until AS date) AND end_date > CAST(:until AS date))
           AS counted_plans,
       sum(monthly_amount) FILTER (WHERE start_date <= CAST(:until AS date)
                                     AND end_date > CAST(:until AS date)) AS counted_mrr,
       count(*) FILTER (WHERE greatest(start_date, activated_on) >= CAST(:first_month AS date)
           AND greatest(start_date, activated_on) < CAST(:last_month AS date) + interval '1 month'
           AND NOT (start_date = end_date AND activated_on < start_date)) AS counted_activations
FROM pg_temp.terms_read
GROUP BY 1, 2, 3, 4, 5, 6, 7;

-- name: find_changes
CREATE TEMPORARY TABLE changes_by_country ON COMMIT DROP AS
WITH chained AS (
    -- A term that starts when the one before it ends takes its place: what changes is the difference,
    -- and most terms are renewals at the same amount, which change nothing.
    SELECT customer_id, currency, country, start_date, end_date, monthly_amount,
           (lag(end_date) OVER w = start_date) IS NOT TRUE AS begins,
           CASE WHEN lead(start_date) OVER w = end_date THEN lead(monthly_amount) OVER w ELSE 0 END
               - monthly_amount AS change_at_end
    FROM pg_temp.terms_read
    WHERE start_date <= CAST(:until AS date)
    WINDOW w AS (PARTITION BY customer_id, currency, country ORDER BY start_date)
)
SELECT t.customer_id, t.currency, t.country, date_trunc('month', e.day::timestamp)::date AS month,
       sum(e.amount) AS amount,
       sum(sum(e.amount)) OVER (PARTITION BY t.customer_id, t.currency, t.country
           ORDER BY date_trunc('month', e.day::timestamp)::date) AS mrr
FROM chained t
CROSS JOIN LATERAL (VALUES
    (t.start_date, t.monthly_amount, t.begins), (t.end_date, t.change_at_end, t.change_at_end <> 0)
) e (day, amount, counts)
WHERE (t.begins OR t.change_at_end <> 0) AND e.counts AND e.day <= CAST(:until AS date)
GROUP BY t.customer_id, t.currency, t.country, date_trunc('month', e.day::timestamp)::date
HAVING sum(e.amount) <> 0;

-- name: find_customer_changes
-- cohort: the month of the customer's very first revenue, first_mrr its amount.
CREATE TEMPORARY TABLE customer_changes ON COMMIT DROP AS
SELECT customer_id, currency, month, amount, sum(amount) OVER w AS mrr,
       first_value(month) OVER w AS cohort, first_value(amount) OVER w AS first_mrr
FROM (
    SELECT customer_id, currency, month, sum(amount) AS amount
    FROM pg_temp.changes_by_country
    GROUP BY customer_id, currency, month
    -- Not 0: who moved to another country has the same revenue there.
    HAVING sum(amount) <> 0
) c
WINDOW w AS (PARTITION BY customer_id, currency ORDER BY month);

-- name: analyze_changes
ANALYZE pg_temp.customer_changes;
