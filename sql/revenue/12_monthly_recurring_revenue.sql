-- Step 12: a month's recurring revenue, what moved it, and the plans that began, for a whole range
-- of months at once. A term adds its monthly amount when it starts and takes it back when it ends,
-- so the revenue of a month is a running sum over starts and ends: one scan of the terms whatever
-- the number of months, and no row per term and month.
-- A term brings revenue from start_date to the day before end_date, once it is activated; a start or
-- an end after :until (the range's last day, or the cut-off if that is earlier) is not looked at yet.
-- A term that was cut short has the day of the cut as its end_date; with no day left (start_date =
-- end_date) what it adds and takes back are on one day.

-- name: stage_months
INSERT INTO revenue.months_staging (run_id, month, as_of)
SELECT :run_id, m::date, CAST(:as_of AS date)
FROM generate_series(
    CAST(:first_month AS timestamp), CAST(:last_month AS timestamp), interval '1 month') m;

-- name: stage_mrr
INSERT INTO revenue.mrr_staging (run_id, month, currency, plan_code, active_plans, mrr)
WITH terms AS (
    -- Terms of a plan that start and end on the same days are one row from here on.
    SELECT currency, plan_id, start_date, end_date,
           count(*) AS plans, sum(monthly_amount) AS amount
    FROM prepaid.service_plans
    WHERE activated_on <= CAST(:as_of AS date) AND start_date <= CAST(:until AS date)
    GROUP BY currency, plan_id, start_date, end_date
),
-- Everything before the range is its opening balance.
per_month AS (
    SELECT t.currency, t.plan_id, sum(e.plans) AS plans, sum(e.amount) AS amount,
           greatest(date_trunc('month', e.day::timestamp)::date, CAST(:first_month AS date)) AS month
    FROM terms t
    CROSS JOIN LATERAL (VALUES
        (t.start_date, t.plans, t.amount), (t.end_date, -t.plans, -t.amount)
    ) e (day, plans, amount)
    WHERE e.day <= CAST(:until AS date)
    GROUP BY t.currency, t.plan_id,
             greatest(date_trunc('month', e.day::timestamp)::date, CAST(:first_month AS date))
),
-- Months in which nothing starts or ends carry the balance on.
running AS (
    SELECT m.month, k.currency, k.plan_id,
           sum(coalesce(d.plans, 0)) OVER w AS active_plans,
           sum(coalesce(d.amount, 0)) OVER w AS mrr
    FROM revenue.months_staging m
    CROSS JOIN (SELECT DISTINCT currency, plan_id FROM per_month) k
    LEFT JOIN per_month d
        ON d.month = m.month AND d.currency = k.currency AND d.plan_id = k.plan_id
    WHERE m.run_id = :run_id
    WINDOW w AS (PARTITION BY k.currency, k.plan_id ORDER BY m.month)
)
SELECT :run_id, r.month, r.currency, pl.plan_code, r.active_plans, r.mrr
FROM running r
JOIN prepaid.plans pl USING (plan_id)
WHERE r.active_plans <> 0 OR r.mrr <> 0;

-- name: stage_movements
WITH terms AS (
    -- A term that starts when the one before it ends, at the same monthly amount, moves nothing:
    -- most terms are renewals, so most starts and ends need not be looked at again.
    SELECT customer_id, currency, start_date, end_date, monthly_amount,
           (lag(end_date) OVER w = start_date AND lag(monthly_amount) OVER w = monthly_amount)
               IS NOT TRUE AS start_counts,
           (lead(start_date) OVER w = end_date AND lead(monthly_amount) OVER w = monthly_amount)
               IS NOT TRUE AS end_counts
    FROM prepaid.service_plans
    WHERE activated_on <= CAST(:as_of AS date) AND start_date <= CAST(:until AS date)
    WINDOW w AS (PARTITION BY customer_id, currency ORDER BY start_date)
),
deltas AS (
    SELECT t.customer_id, t.currency, date_trunc('month', e.day::timestamp)::date AS month,
           sum(e.amount) AS amount
    FROM terms t
    CROSS JOIN LATERAL (VALUES
        (t.start_date, t.monthly_amount, t.start_counts),
        (t.end_date, -t.monthly_amount, t.end_counts)
    ) e (day, amount, counts)
    WHERE (t.start_counts OR t.end_counts) AND e.counts AND e.day <= CAST(:until AS date)
    GROUP BY t.customer_id, t.currency, date_trunc('month', e.day::timestamp)::date
    -- What is left begins with the customer's very first revenue: a first row is "new", no other is.
    HAVING sum(e.amount) <> 0
),
balances AS (
    SELECT currency, month, amount,
           sum(amount) OVER w AS closing, row_number() OVER w = 1 AS is_first
    FROM deltas
    WINDOW w AS (PARTITION BY customer_id, currency ORDER BY month)
),
moved AS (
    SELECT month, currency,
           CASE WHEN is_first THEN 'new'
                WHEN closing = amount THEN 'reactivation'
                WHEN closing = 0 THEN 'churn'
                WHEN amount > 0 THEN 'expansion'
                ELSE 'contraction' END AS movement,
           count(*) AS customers, sum(amount) AS amount
    FROM balances
    GROUP BY 1, 2, 3
),
staged AS (
    INSERT INTO revenue.mrr_movements_staging
        (run_id, month, currency, movement, customers, amount)
    SELECT :run_id, month, currency, movement, customers, amount
    FROM moved
    WHERE month >= CAST(:first_month AS date)
),
per_month AS (
    SELECT currency, greatest(month, CAST(:first_month AS date)) AS month,
           sum(amount) AS amount,
           sum(amount) FILTER (WHERE month >= CAST(:first_month AS date)) AS moved_in_month,
           sum(n.customers) AS customers,
           sum(n.customers) FILTER (WHERE month >= CAST(:first_month AS date)) AS came_in_month
    FROM moved
    CROSS JOIN LATERAL (SELECT customers * CASE
        WHEN movement IN ('new', 'reactivation') THEN 1 WHEN movement = 'churn' THEN -1 ELSE 0
        END AS customers) n
    GROUP BY currency, greatest(month, CAST(:first_month AS date))
),
bridge AS (
    SELECT m.month, k.currency,
           sum(coalesce(d.amount, 0)) OVER w AS closing_mrr,
           coalesce(d.moved_in_month, 0) AS amount,
           sum(coalesce(d.customers, 0)) OVER w AS closing_customers,
           coalesce(d.came_in_month, 0) AS customers
    FROM revenue.months_staging m
    CROSS JOIN (SELECT DISTINCT currency FROM per_month) k
    LEFT JOIN per_month d ON d.month = m.month AND d.currency = k.currency
    WHERE m.run_id = :run_id
    WINDOW w AS (PARTITION BY k.currency ORDER BY m.month)
)
INSERT INTO revenue.mrr_bridge_staging
    (run_id, month, currency, opening_mrr, closing_mrr, opening_customers, closing_customers)
SELECT :run_id, month, currency, closing_mrr - amount, closing_mrr,
       closing_customers - customers, closing_customers
FROM bridge
WHERE closing_mrr <> 0 OR closing_mrr <> amount;

-- name: stage_activations
-- Unlike revenue, a plan that was paid in advance counts in the month in which it starts, also after
-- :until. One that was cancelled before that never began.
INSERT INTO revenue.plan_activations_staging
    (run_id, month, currency, plan_code, kind, plans, net_amount)
SELECT :run_id, date_trunc('month', d.day::timestamp)::date, d.currency, pl.plan_code, d.kind,
       sum(d.plans), sum(d.net_amount)
FROM (
    SELECT greatest(start_date, activated_on) AS day, currency, plan_id, kind,
           count(*) AS plans, sum(net_amount) AS net_amount
    FROM prepaid.service_plans
    WHERE activated_on <= CAST(:as_of AS date)
      -- The later of the two lies in the range: said of each column, for which there are statistics.
      AND (start_date >= CAST(:first_month AS date) OR activated_on >= CAST(:first_month AS date))
      AND start_date < CAST(:last_month AS date) + interval '1 month'
      AND activated_on < CAST(:last_month AS date) + interval '1 month'
      AND (end_date > start_date OR activated_on >= start_date)
    GROUP BY greatest(start_date, activated_on), currency, plan_id, kind
) d
JOIN prepaid.plans pl USING (plan_id)
GROUP BY date_trunc('month', d.day::timestamp)::date, d.currency, pl.plan_code, d.kind;

-- name: stage_reversals
-- A function of the set of records: each event once, whatever was delivered twice or out of order.
INSERT INTO revenue.payment_reversals_staging (run_id, month, currency, kind, records, amount)
WITH events AS (
    -- Of an event that was delivered with different contents, the largest amount.
    SELECT DISTINCT ON (provider, provider_ref, status, occurred_at)
           provider, provider_ref, status, occurred_at, invoice_number, amount, currency
    FROM prepaid.transactions
    WHERE status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed')
      AND provider <> '' AND provider_ref <> ''
      -- A day more at both ends: by the index, whatever the time zone.
      AND occurred_at >= CAST(:first_month AS timestamp) AT TIME ZONE 'UTC' - interval '1 day'
      AND occurred_at < CAST(:last_month AS timestamp) AT TIME ZONE 'UTC' + interval '1 month 1 day'
      AND prepaid.business_date(occurred_at) >= CAST(:first_month AS date)
      AND prepaid.business_date(occurred_at) < CAST(:last_month AS date) + interval '1 month'
      AND prepaid.business_date(occurred_at) <= CAST(:as_of AS date)
    ORDER BY provider, provider_ref, status, occurred_at,
             CASE WHEN abs(amount) < 'Infinity' THEN abs(amount) END DESC NULLS LAST,
             currency, invoice_number
)
SELECT :run_id, date_trunc('month', prepaid.business_date(e.occurred_at)::timestamp)::date,
       c.currency, e.status, count(*),
       sum(moved.amount * CASE e.status WHEN 'ChargebackReversed' THEN -1 ELSE 1 END)
FROM events e
-- LIMIT keeps these look-ups by key, one for each of the few events. (References are looked up by
-- their hash: they may be longer than what an index takes.)
LEFT JOIN LATERAL (
    SELECT true AS was, s.amount, s.currency FROM prepaid.transactions s
    WHERE hashtextextended(s.provider_ref, 0) = hashtextextended(e.provider_ref, 0)
      AND s.provider = e.provider AND s.provider_ref = e.provider_ref AND s.status = 'Success'
      AND (s.invoice_id IS NOT NULL
           OR EXISTS (SELECT FROM prepaid.invoices i WHERE i.invoice_number = s.invoice_number))
    ORDER BY s.occurred_at, s.amount DESC, s.currency LIMIT 1
) paid ON true
-- The last word on whether the payment succeeded; at the same moment Failed is later than Success.
LEFT JOIN LATERAL (
    SELECT w.status FROM prepaid.transactions w
    WHERE e.status = 'Failed'
      AND hashtextextended(w.provider_ref, 0) = hashtextextended(e.provider_ref, 0)
      AND w.provider = e.provider AND w.provider_ref = e.provider_ref
      AND (w.status = 'Success' AND coalesce(w.occurred_at, '-infinity') <= e.occurred_at
           OR w.status = 'Failed' AND coalesce(w.occurred_at, '-infinity') < e.occurred_at)
    ORDER BY coalesce(w.occurred_at, '-infinity') DESC, w.status LIMIT 1
) before ON true
JOIN prepaid.currencies c ON c.currency = coalesce(e.currency, paid.currency)
-- A record without an amount takes back what was paid.
CROSS JOIN LATERAL (SELECT CASE
        WHEN abs(e.amount) < 'Infinity' THEN abs(e.amount)
        WHEN abs(paid.amount) < 'Infinity' THEN abs(paid.amount)
        ELSE 0 END AS amount) moved
WHERE CASE e.status
    WHEN 'Failed' THEN paid.was AND before.status = 'Success'
    WHEN 'Refunded' THEN paid.was OR EXISTS (
        SELECT FROM prepaid.credit_notes n WHERE n.credit_note_number = e.invoice_number)
    ELSE paid.was END
GROUP BY 2, 3, 4;

-- name: stage_credit_notes
INSERT INTO revenue.credit_notes_issued_staging
    (run_id, month, currency, credit_notes, net, tax, total)
SELECT :run_id, date_trunc('month', issued_on::timestamp)::date, currency, count(*),
       sum(net), sum(tax), sum(total)
FROM prepaid.credit_notes
WHERE issued_on >= CAST(:first_month AS date) AND issued_on <= CAST(:as_of AS date)
  AND issued_on < CAST(:last_month AS date) + interval '1 month'
GROUP BY 2, 3;

-- name: stage_control
INSERT INTO revenue.control_staging (run_id, month, currency, active_plans, mrr, activations)
SELECT :run_id, CAST(:last_month AS date), currency,
       count(*) FILTER (WHERE active.is_active),
       coalesce(sum(monthly_amount) FILTER (WHERE active.is_active), 0),
       count(*) FILTER (WHERE greatest(start_date, activated_on) >= CAST(:first_month AS date)
           AND greatest(start_date, activated_on) < CAST(:last_month AS date) + interval '1 month'
           AND NOT (start_date = end_date AND activated_on < start_date))
FROM prepaid.service_plans
CROSS JOIN LATERAL (SELECT start_date <= CAST(:until AS date) AND end_date > CAST(:until AS date))
    active (is_active)
WHERE activated_on <= CAST(:as_of AS date)
GROUP BY currency;
