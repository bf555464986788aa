-- Step 13: why a closed month has changed.
-- What has become known since a version of the month was computed, of all that its figures are made
-- from: what was imported, activated or cut, and what happened to payments in the month.
WITH asked AS (
    SELECT CAST(:month AS date) AS month, (CAST(:month AS date) + interval '1 month')::date AS after,
           CAST(:since AS timestamptz) AS since, CAST(:as_of AS date) AS as_of
), terms AS (
    SELECT p.service_plan_id, p.start_date, p.end_date, p.full_end_date, p.origin, p.created_at,
           p.activated_at, a.after, a.since
    FROM asked a JOIN prepaid.service_plans p ON p.start_date < a.after AND p.activated_on <= a.as_of
)
SELECT cause, sum(n)::bigint AS times, min(day) AS first_on, max(day) AS last_on
FROM (
    SELECT 'terms_imported' AS cause, prepaid.business_date(created_at) AS day, count(*) AS n
    FROM terms WHERE origin = 'imported' AND created_at > since GROUP BY 2
    UNION ALL
    SELECT 'terms_activated', prepaid.business_date(activated_at), count(*)
    FROM terms WHERE origin = 'pipeline' AND activated_at > since GROUP BY 2
    UNION ALL
    SELECT 'terms_cut', prepaid.business_date(l.at), count(DISTINCT t.service_plan_id)
    FROM terms t JOIN prepaid.audit_log l
        ON l.service_plan_id = t.service_plan_id AND l.event = 'term_cut' AND l.at > t.since
    WHERE t.full_end_date IS NOT NULL AND t.end_date < t.after GROUP BY 2
    UNION ALL
    SELECT 'payment_records', prepaid.business_date(t.received_at), count(*)
    FROM asked a JOIN prepaid.transactions t
        ON t.status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed')
        AND t.received_at > a.since
        AND date_trunc('month', prepaid.business_date(prepaid.counted_at(
                t.occurred_at, t.received_at, t.time_doubted))::timestamp) = a.month
    GROUP BY 2
    UNION ALL
    SELECT 'credit_notes', prepaid.business_date(n.created_at), count(*)
    FROM asked a JOIN prepaid.credit_notes n
        ON n.issued_on >= a.month AND n.issued_on < a.after AND n.created_at > a.since
    GROUP BY 2
) c
GROUP BY cause
ORDER BY min(day), cause;
