-- Step 13: what the report shows of a month as a whole, beside its figures: the course of the months
-- before, how the process ran, and what the checks came to.

-- name: course
-- Thirteen months up to each of the range, as they are published today.
SELECT m.month, k.currency, c.exponent, coalesce(b.closing_mrr, 0) AS mrr,
       coalesce(a.new_plans, 0) AS new_plans, coalesce(a.renewals, 0) AS renewals,
       coalesce(a.new_net, 0) AS new_net, coalesce(a.renewal_net, 0) AS renewal_net
FROM revenue.months m
CROSS JOIN (
    SELECT currency FROM revenue.mrr_bridge
    WHERE month BETWEEN CAST(:first_month AS date) - interval '12 months' AND CAST(:last_month AS date)
    UNION
    SELECT currency FROM revenue.plan_activations
    WHERE month BETWEEN CAST(:first_month AS date) - interval '12 months' AND CAST(:last_month AS date)
) k
JOIN prepaid.currencies c USING (currency)
LEFT JOIN revenue.mrr_bridge b ON (b.month, b.currency) = (m.month, k.currency)
LEFT JOIN (
    SELECT month, currency,
           sum(plans) FILTER (WHERE kind = 'new')::bigint AS new_plans,
           sum(plans) FILTER (WHERE kind = 'renewal')::bigint AS renewals,
           sum(net_amount) FILTER (WHERE kind = 'new') AS new_net,
           sum(net_amount) FILTER (WHERE kind = 'renewal') AS renewal_net
    FROM revenue.plan_activations GROUP BY month, currency
) a ON (a.month, a.currency) = (m.month, k.currency)
WHERE m.month BETWEEN CAST(:first_month AS date) - interval '12 months' AND CAST(:last_month AS date)
ORDER BY k.currency, m.month;

-- name: tasks
-- The tasks that were opened in each month, and their outcome by now. A day is the business day
-- for which it was done, where that was said (a replay), and hours are counted between those then.
SELECT date_trunc('month', k.opened_on::timestamp)::date AS month, k.kind, count(*) AS opened,
       count(*) FILTER (WHERE k.status = 'Done') AS decided,
       count(*) FILTER (WHERE k.status = 'Withdrawn') AS withdrawn,
       count(*) FILTER (WHERE EXISTS (
           SELECT FROM prepaid.sign_offs s
           WHERE s.task_id = k.task_id AND s.decision IN ('rejected', 'failed'))) AS rejected,
       count(*) FILTER (WHERE k.status <> 'Withdrawn'
           AND coalesce(d.decided_on, CAST(:as_of AS date)) > k.due_on) AS late,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY d.hours) AS median_hours,
       max(d.hours) AS longest_hours
FROM prepaid.tasks k
LEFT JOIN LATERAL (
    SELECT coalesce(a.as_of, prepaid.business_date(k.decided_at)) AS decided_on,
           CASE WHEN a.as_of IS NULL
               THEN extract(epoch FROM k.decided_at - k.opened_at) / 3600
               ELSE 24 * (a.as_of - k.opened_on) END::double precision AS hours
    FROM (SELECT 1) one
    LEFT JOIN LATERAL (
        SELECT l.as_of FROM prepaid.audit_log l
        WHERE l.service_plan_id = k.service_plan_id AND l.event = 'task_decided'
          AND l.entity_id = k.task_id
        ORDER BY l.audit_id DESC LIMIT 1) a ON true
    WHERE k.status = 'Done'
) d ON true
WHERE k.opened_on >= CAST(:first_month AS date)
  AND k.opened_on < CAST(:last_month AS date) + interval '1 month'
  AND k.opened_on <= CAST(:as_of AS date)
GROUP BY 1, 2
ORDER BY 1, 2;

-- name: holds
-- Plans that were held in each month, by reason, and whether they still are.
SELECT date_trunc('month', placed.day::timestamp)::date AS month, h.reason_code, count(*) AS placed,
       count(*) FILTER (WHERE h.released_at IS NOT NULL) AS released
FROM (
    SELECT entity_id, as_of AS day FROM prepaid.audit_log
    WHERE event = 'hold_placed' AND as_of >= CAST(:first_month AS date)
      AND as_of < CAST(:last_month AS date) + interval '1 month'
    UNION ALL
    -- A person has no business day: it was the day on which they did it.
    SELECT entity_id, prepaid.business_date(at) FROM prepaid.audit_log
    WHERE event = 'hold_placed' AND as_of IS NULL
      AND at >= CAST(:first_month AS timestamp) AT TIME ZONE 'UTC' - interval '1 day'
      AND at < CAST(:last_month AS timestamp) AT TIME ZONE 'UTC' + interval '1 month 1 day'
      AND prepaid.business_date(at) >= CAST(:first_month AS date)
      AND prepaid.business_date(at) < CAST(:last_month AS date) + interval '1 month'
) placed
JOIN prepaid.holds h ON h.hold_id = placed.entity_id
WHERE placed.day <= CAST(:as_of AS date)
GROUP BY 1, 2
ORDER BY 1, 3 DESC, 2;

-- name: checks
-- The rules of the run that made each month's figures, of the run that makes the report, and the last
-- ones of the input tables.
WITH last_inputs AS (
    SELECT run_id FROM revenue.check_results
    WHERE stage = 'inputs' AND as_of <= CAST(:as_of AS date)
    ORDER BY checked_at DESC LIMIT 1
)
SELECT m.month, r.stage, r.asset, r.rule, r.is_warning, r.passed, r.failing, r.as_of
FROM revenue.months m
JOIN revenue.check_results r
    ON r.stage = 'inputs' AND r.run_id = (SELECT run_id FROM last_inputs)
    OR r.stage = 'figures' AND r.run_id = m.run_id
    OR r.stage = 'report' AND r.run_id = :run_id
WHERE m.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
ORDER BY m.month, CASE r.stage WHEN 'inputs' THEN 1 WHEN 'figures' THEN 2 ELSE 3 END, r.place;
