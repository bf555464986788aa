-- Step 12: prepaid money is owed service. What was billed becomes revenue day by day: each month's slice
-- of a term is its days' part of the net amount, rounded half up to the currency's decimals, and the
-- last slice is what is left. docs/revenue.md has the rules and worked examples.
-- A term gives one row per month that it reaches into but for the last: in the last month each slice is
-- taken off again and the whole amount is put, so that nothing need be added up term by term.

-- name: credited_terms
CREATE TEMPORARY TABLE credited_terms ON COMMIT DROP AS
SELECT * FROM revenue.credited_terms(ARRAY(
    SELECT service_plan_id FROM pg_temp.terms_read WHERE full_end_date IS NOT NULL
    UNION SELECT service_plan_id FROM prepaid.credit_notes), CAST(:as_of AS date));

-- name: stage_deferred_revenue
INSERT INTO revenue.deferred_revenue_staging
    (run_id, month, currency, opening, billed, recognised, refunded, closing)
WITH currencies AS (
    -- Amounts are whole numbers of the currency's smallest unit until they are staged.
    SELECT currency, 10::numeric ^ exponent AS units, 10::numeric ^ -exponent AS unit
    FROM prepaid.currencies
),
-- The first day of every month from the first term to the one after the range. A month is its place in
-- this list; what was before the range is in the place before it.
calendar AS MATERIALIZED (
    SELECT array_agg(day::date ORDER BY day) AS days
    FROM (SELECT least(min(start_date), min(activated_on), CAST(:first_month AS date)) AS first
          FROM pg_temp.terms_read) t
    CROSS JOIN generate_series(date_trunc('month', first::timestamp),
                               CAST(:last_month AS timestamp) + interval '1 month',
                               interval '1 month') day
),
range AS MATERIALIZED (
    SELECT width_bucket(CAST(:first_month AS date), days) - 1 AS before,
           width_bucket(CAST(:last_month AS date), days) AS last
    FROM calendar
),
terms AS MATERIALIZED (
    -- Terms of the same amount and days are one row. What was over before the range is owed no more,
    -- unless it was billed later.
    SELECT t.*, t.end_date - t.start_date AS days, t.end_date - 1 <= CAST(:until AS date) AS is_over,
           width_bucket(t.start_date, (SELECT days FROM calendar)) AS starts_in,
           width_bucket(least(t.end_date - 1, CAST(:until AS date)), (SELECT days FROM calendar))
               AS served_in
    FROM (
        SELECT p.currency, p.net_amount * c.units AS amount, p.start_date, p.end_date,
               width_bucket(p.activated_on, (SELECT days FROM calendar)) AS billed_in,
               count(*) AS terms
        FROM pg_temp.terms_read p
        JOIN currencies c USING (currency)
        WHERE p.activated_on < CAST(:last_month AS date) + interval '1 month'
          AND (p.end_date > CAST(:first_month AS date) OR p.activated_on >= CAST(:first_month AS date))
          AND p.full_end_date IS NULL
          AND p.service_plan_id NOT IN (SELECT service_plan_id FROM credited_terms)
        GROUP BY p.currency, p.net_amount * c.units, p.start_date, p.end_date,
                 width_bucket(p.activated_on, (SELECT days FROM calendar))
    ) t
),
-- In whole numbers wherever they are large enough for any number of terms, which costs a third. And
-- rounded up, the slices of a very small amount can come to more than there is.
checked AS (
    SELECT *, CASE WHEN amount < 1e11 AND amount = trunc(amount)
                    AND 2 * amount * CASE
                        WHEN is_over
                            THEN end_date - greatest((SELECT days FROM calendar)[served_in], start_date)
                        ELSE end_date - CAST(:until AS date) - 1 END
                        >= (served_in - starts_in + (NOT is_over)::integer) * days
                   THEN amount::bigint END AS whole_amount
    FROM terms
),
slices AS (
    SELECT currency, greatest(place, billed_in, (SELECT before FROM range)) AS place,
           CASE WHEN is_over THEN greatest(served_in, billed_in) END AS last_place,
           -- As revenue.days_part has it.
           sum(terms * ((2 * whole_amount * served + days) / (2 * days))) AS amount
    FROM (
        SELECT *, generate_series(starts_in, served_in - is_over::integer) AS place
        FROM checked WHERE whole_amount IS NOT NULL AND start_date <= CAST(:until AS date)
    ) s
    CROSS JOIN LATERAL (SELECT
        least((SELECT days FROM calendar)[place + 1], CAST(:until AS date) + 1)
            - greatest((SELECT days FROM calendar)[place], start_date) AS served) d
    GROUP BY 1, 2, 3
),
-- All others by running sums of their own: never more than there is, and less what is credited, from
-- the credit on. What is not credited of a term that is cut is revenue in its last month.
others AS (
    SELECT currency, terms, amount, start_date, days, starts_in, served_in, is_over, billed_in,
           false AS is_cut, 0 AS credit, NULL::integer AS credited_in, 0 AS lost
    FROM checked WHERE whole_amount IS NULL AND start_date <= CAST(:until AS date)
    UNION ALL
    SELECT t.currency, 1, t.amount * c.units, t.start_date, t.full_end_date - t.start_date,
           width_bucket(t.start_date, days), width_bucket(least(t.last_day, CAST(:until AS date)), days),
           t.last_day <= CAST(:until AS date), width_bucket(t.billed_on, days), t.is_cut,
           t.credit * c.units, width_bucket(t.credited_on, days), t.lost * c.units
    FROM credited_terms t
    JOIN currencies c USING (currency)
    CROSS JOIN calendar
    WHERE t.start_date <= CAST(:until AS date)
),
other_slices AS (
    SELECT o.currency, greatest(s.place, o.billed_in) AS place, o.terms * s.amount AS amount
    FROM others o
    CROSS JOIN LATERAL (
        SELECT place, total - lag(total, 1, 0::numeric) OVER (ORDER BY place) AS amount
        FROM (
            SELECT n.place,
                   CASE WHEN o.is_over AND n.place = o.served_in
                        THEN o.amount - o.lost
                            - CASE WHEN o.is_cut OR o.credited_in <= n.place THEN o.credit ELSE 0 END
                        ELSE least(
                            o.amount - CASE WHEN o.credited_in <= n.place THEN o.credit ELSE 0 END,
                            sum(revenue.days_part(
                                o.amount,
                                least((SELECT days FROM calendar)[n.place + 1], CAST(:until AS date) + 1)
                                    - greatest((SELECT days FROM calendar)[n.place], o.start_date),
                                o.days)) OVER (ORDER BY n.place)) END AS total
            FROM generate_series(o.starts_in, o.served_in) n (place)
            UNION ALL
            SELECT o.credited_in, o.amount - o.credit
            WHERE o.is_over AND NOT o.is_cut AND o.credited_in > o.served_in
        ) totals
    ) s
),
changes AS (
    SELECT e.currency, greatest(e.place, (SELECT before FROM range)) AS place,
           sum(e.billed) AS billed, sum(e.recognised) AS recognised, sum(e.refunded) AS refunded
    FROM (
        SELECT currency, billed_in AS place, sum(terms * amount) AS billed, 0 AS recognised, 0 AS refunded
        FROM terms GROUP BY currency, billed_in
        UNION ALL
        SELECT currency, greatest(served_in, billed_in), 0, sum(terms * whole_amount), 0
        FROM checked WHERE whole_amount IS NOT NULL AND is_over GROUP BY currency, greatest(served_in, billed_in)
        UNION ALL SELECT currency, place, 0, amount, 0 FROM slices
        UNION ALL SELECT currency, last_place, 0, -amount, 0 FROM slices WHERE last_place IS NOT NULL
        UNION ALL SELECT currency, place, 0, amount, 0 FROM other_slices
        UNION ALL
        SELECT t.currency, width_bucket(e.day, days), e.billed * c.units, 0, e.refunded * c.units
        FROM credited_terms t
        JOIN currencies c USING (currency)
        CROSS JOIN calendar
        CROSS JOIN LATERAL (VALUES (t.billed_on, t.amount, 0), (t.credited_on, 0, t.credit),
                                   (t.lost_on, 0, t.lost)) e (day, billed, refunded)
        WHERE e.day IS NOT NULL
    ) e
    WHERE e.place <= (SELECT last FROM range)
    GROUP BY 1, 2
),
running AS (
    SELECT m.month, k.currency, coalesce(c.billed, 0) AS billed,
           coalesce(c.recognised, 0) AS recognised, coalesce(c.refunded, 0) AS refunded,
           sum(coalesce(c.billed - c.recognised - c.refunded, 0))
               OVER (PARTITION BY k.currency ORDER BY m.place) AS closing
    FROM (
        SELECT month, (SELECT before FROM range) + row_number() OVER (ORDER BY month) AS place
        FROM revenue.months_staging WHERE run_id = :run_id
        UNION ALL SELECT NULL, before FROM range
    ) m
    CROSS JOIN (SELECT DISTINCT currency FROM changes) k
    LEFT JOIN changes c ON c.place = m.place AND c.currency = k.currency
)
SELECT :run_id, r.month, r.currency,
       trim_scale((r.closing - r.billed + r.recognised + r.refunded) * c.unit),
       trim_scale(r.billed * c.unit), trim_scale(r.recognised * c.unit),
       trim_scale(r.refunded * c.unit), trim_scale(r.closing * c.unit)
FROM running r
JOIN currencies c USING (currency)
WHERE r.month IS NOT NULL
  AND (r.closing <> 0 OR r.billed <> 0 OR r.recognised <> 0 OR r.refunded <> 0);

-- name: stage_retention_control
-- The terms that ended in the range, and what is owed at its end, counted one by one: what the figures
-- must agree with. Each term is looked at on the last day alone, as revenue.terms_owed does.
INSERT INTO revenue.retention_control_staging (run_id, month, currency, ended, deferred)
SELECT :run_id, CAST(:last_month AS date), currency, sum(ended), sum(owed)
FROM (
    SELECT currency, count(*) AS ended, 0 AS owed
    FROM pg_temp.terms_read
    WHERE end_date >= CAST(:first_month AS date) AND end_date <= CAST(:as_of AS date)
      AND end_date < CAST(:last_month AS date) + interval '1 month'
      AND (full_end_date IS NULL OR status = 'Cancelled')
      AND NOT (start_date = end_date AND activated_on < start_date)
    GROUP BY currency
    UNION ALL
    SELECT t.currency, 0, t.amount - r.recognised - so_far.credit - so_far.lost
    FROM (
        SELECT p.currency, p.net_amount AS amount, p.start_date, p.end_date AS full_end_date,
               false AS is_cut, p.end_date - 1 AS last_day, 0 AS credit, NULL::date AS credited_on,
               0 AS lost, NULL::date AS lost_on
        FROM pg_temp.terms_read p
        WHERE p.activated_on <= CAST(:until AS date) AND p.end_date - 1 > CAST(:until AS date)
          AND p.full_end_date IS NULL
          AND p.service_plan_id NOT IN (SELECT service_plan_id FROM credited_terms)
        UNION ALL
        SELECT currency, amount, start_date, full_end_date, is_cut, last_day, credit, credited_on, lost,
               lost_on
        FROM credited_terms WHERE billed_on <= CAST(:until AS date)
    ) t
    JOIN prepaid.currencies c ON c.currency = t.currency
    CROSS JOIN LATERAL (
        SELECT CASE WHEN t.credited_on <= CAST(:until AS date) THEN t.credit ELSE 0 END AS credit,
               CASE WHEN t.lost_on <= CAST(:until AS date) THEN t.lost ELSE 0 END AS lost) so_far
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(revenue.days_part(
                   t.amount * 10::numeric ^ c.exponent,
                   least((m.start + interval '1 month')::date, CAST(:until AS date) + 1)
                       - greatest(m.start::date, t.start_date),
                   t.full_end_date - t.start_date)), 0) * 10::numeric ^ -c.exponent AS amount
        FROM generate_series(date_trunc('month', t.start_date::timestamp),
                             CAST(:until AS timestamp), interval '1 month') m (start)
        WHERE t.start_date <= CAST(:until AS date)) served
    CROSS JOIN LATERAL (
        SELECT CASE WHEN t.last_day <= CAST(:until AS date)
                    THEN t.amount - t.lost - CASE WHEN t.is_cut THEN t.credit ELSE so_far.credit END
                    ELSE least(t.amount - so_far.credit, served.amount) END AS recognised) r
) counted
GROUP BY currency;
