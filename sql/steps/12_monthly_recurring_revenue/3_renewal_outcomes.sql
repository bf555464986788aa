-- Step 12: the outcome of the terms that ended in each month. docs/revenue.md has the rules; which term
-- had which outcome is asked of the function revenue.terms_due.

-- name: stage_renewal_outcomes
INSERT INTO revenue.renewal_outcomes_staging
    (run_id, month, currency, plan_code, country, due, on_time, in_grace, reactivated, cancelled,
     waiting, lapsed)
WITH by_day AS (
    -- By day first: how many of them there are is known to the planner, who need not sort then.
    SELECT end_date, currency, plan_id, country, count(*) AS due,
           count(*) FILTER (WHERE outcome = 'on_time') AS on_time,
           count(*) FILTER (WHERE outcome = 'in_grace') AS in_grace,
           count(*) FILTER (WHERE outcome = 'reactivated') AS reactivated,
           count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE outcome = 'waiting') AS waiting,
           count(*) FILTER (WHERE outcome = 'lapsed') AS lapsed
    FROM (
        SELECT due.end_date, due.currency, due.plan_id, due.country,
               revenue.renewal_outcome(
                   due.end_date, prepaid.days_within_term(i.grace_days, due.term_days), due.status,
                   -- Asked only for the few that nothing followed.
                   (SELECT s.cancelled_on FROM prepaid.subscriptions s
                    WHERE s.subscription_id = due.subscription_id),
                   next.kind, greatest(next.start_date, next.activated_on), CAST(:as_of AS date))
                   AS outcome
        FROM pg_temp.terms_read due
        CROSS JOIN prepaid.installation i
        LEFT JOIN pg_temp.terms_read next
            ON next.previous_plan_id = due.service_plan_id
            -- Most follow in time; only for the others is it asked whether the month was still open.
            AND (next.activated_on <= due.end_date
                 OR next.activated_on < date_trunc('month', due.end_date::timestamp)
                                        + make_interval(months => 1, days => i.grace_days))
            AND (next.end_date > next.start_date OR next.activated_on >= next.start_date)
        WHERE due.end_date >= CAST(:first_month AS date) AND due.end_date <= CAST(:as_of AS date)
          AND due.end_date < CAST(:last_month AS date) + interval '1 month'
          -- Cut by a change of plan: the customer goes on with another term.
          AND (due.full_end_date IS NULL OR due.status = 'Cancelled')
          -- Paid in advance and cancelled before its first day, it never began.
          AND (due.end_date > due.start_date OR due.activated_on >= due.start_date)
        -- The outcome is found once, not once for each count.
        OFFSET 0
    ) outcomes
    GROUP BY end_date, currency, plan_id, country
)
SELECT :run_id, date_trunc('month', d.end_date::timestamp)::date, d.currency, pl.plan_code, d.country,
       sum(d.due), sum(d.on_time), sum(d.in_grace), sum(d.reactivated), sum(d.cancelled),
       sum(d.waiting), sum(d.lapsed)
FROM by_day d
JOIN prepaid.plans pl USING (plan_id)
GROUP BY 2, d.currency, pl.plan_code, d.country;
