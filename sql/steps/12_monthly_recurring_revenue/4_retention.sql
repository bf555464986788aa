-- Step 12: how many of the customers with MRR there still are, and how much of their MRR, after one and
-- twelve months and by cohorts. Made from the temporary table customer_changes: what is constant
-- between two changes of a customer is added up once, so that no row per customer and month is needed.

-- name: stage_retention_1
-- Over one month it is what the movements say: nobody comes or goes between two month ends.
INSERT INTO revenue.retention_staging
    (run_id, month, currency, window_months, customers_before, customers_kept, mrr_before, mrr_kept,
     mrr_now)
SELECT :run_id, b.month, b.currency, 1, b.opening_customers, b.opening_customers - coalesce(m.gone, 0),
       b.opening_mrr, b.opening_mrr + coalesce(m.lost, 0),
       b.opening_mrr + coalesce(m.lost, 0) + coalesce(m.gained, 0)
FROM revenue.mrr_bridge_staging b
LEFT JOIN (
    SELECT month, currency,
           sum(customers) FILTER (WHERE movement = 'churn') AS gone,
           sum(amount) FILTER (WHERE movement IN ('churn', 'contraction')) AS lost,
           sum(amount) FILTER (WHERE movement = 'expansion') AS gained
    FROM revenue.mrr_movements_staging WHERE run_id = :run_id
    GROUP BY month, currency
) m USING (month, currency)
WHERE b.run_id = :run_id AND b.opening_customers > 0;

-- name: stage_retention_12
-- A customer's MRR of a year ago follows the same course, twelve months later.
INSERT INTO revenue.retention_staging
    (run_id, month, currency, window_months, customers_before, customers_kept, mrr_before, mrr_kept,
     mrr_now)
WITH events AS (
    SELECT customer_id, currency, month, amount AS now, 0 AS before FROM customer_changes
    UNION ALL
    SELECT customer_id, currency, (month + interval '12 months')::date, 0, amount
    FROM customer_changes
    WHERE month <= CAST(:last_month AS date) - interval '12 months'
),
courses AS (
    SELECT currency, month, now AS now_by, before AS before_by,
           sum(now) OVER w AS now, sum(before) OVER w AS before
    FROM events
    -- Row by row: what two changes of one month come to is the same in either order.
    WINDOW w AS (PARTITION BY customer_id, currency ORDER BY month ROWS UNBOUNDED PRECEDING)
),
changes AS (
    SELECT currency, greatest(month, CAST(:first_month AS date)) AS month,
           sum((before > 0)::integer - (old_before > 0)::integer) AS customers_before,
           sum((before > 0 AND now > 0)::integer - (old_before > 0 AND old_now > 0)::integer)
               AS customers_kept,
           sum(before_by) AS mrr_before,
           sum(least(before, now) - least(old_before, old_now)) AS mrr_kept,
           sum(CASE WHEN before > 0 THEN now ELSE 0 END
               - CASE WHEN old_before > 0 THEN old_now ELSE 0 END) AS mrr_now
    FROM courses
    CROSS JOIN LATERAL (SELECT now - now_by AS old_now, before - before_by AS old_before) old
    -- Without MRR a year ago, before and after the change, a customer is not counted.
    WHERE before > 0 OR old_before > 0
    GROUP BY currency, greatest(month, CAST(:first_month AS date))
),
running AS (
    SELECT m.month, k.currency,
           sum(coalesce(c.customers_before, 0)) OVER w AS customers_before,
           sum(coalesce(c.customers_kept, 0)) OVER w AS customers_kept,
           sum(coalesce(c.mrr_before, 0)) OVER w AS mrr_before,
           sum(coalesce(c.mrr_kept, 0)) OVER w AS mrr_kept,
           sum(coalesce(c.mrr_now, 0)) OVER w AS mrr_now
    FROM revenue.months_staging m
    CROSS JOIN (SELECT DISTINCT currency FROM changes) k
    LEFT JOIN changes c ON c.month = m.month AND c.currency = k.currency
    WHERE m.run_id = :run_id
    WINDOW w AS (PARTITION BY k.currency ORDER BY m.month)
)
SELECT :run_id, month, currency, 12, customers_before, customers_kept, mrr_before, mrr_kept, mrr_now
FROM running
WHERE customers_before > 0;

-- name: stage_cohorts
INSERT INTO revenue.cohorts_staging
    (run_id, month, currency, cohort, customers, customers_kept, mrr, mrr_kept, mrr_now)
WITH changes AS (
    SELECT currency, cohort, greatest(month, CAST(:first_month AS date)) AS month,
           count(*) FILTER (WHERE month = cohort) AS customers,
           sum((mrr > 0)::integer - (old_mrr > 0)::integer) AS customers_kept,
           sum(amount) FILTER (WHERE month = cohort) AS began_with,
           sum(least(mrr, first_mrr) - least(old_mrr, first_mrr)) AS mrr_kept,
           sum(amount) AS mrr_now
    FROM customer_changes
    CROSS JOIN LATERAL (SELECT mrr - amount AS old_mrr) before
    GROUP BY currency, cohort, greatest(month, CAST(:first_month AS date))
)
SELECT :run_id, m.month, k.currency, k.cohort,
       sum(coalesce(c.customers, 0)) OVER w, sum(coalesce(c.customers_kept, 0)) OVER w,
       sum(coalesce(c.began_with, 0)) OVER w, sum(coalesce(c.mrr_kept, 0)) OVER w,
       sum(coalesce(c.mrr_now, 0)) OVER w
FROM revenue.months_staging m
JOIN (SELECT DISTINCT currency, cohort FROM changes) k ON k.cohort <= m.month
LEFT JOIN changes c ON c.month = m.month AND c.currency = k.currency AND c.cohort = k.cohort
WHERE m.run_id = :run_id
WINDOW w AS (PARTITION BY k.currency, k.cohort ORDER BY m.month);
