-- Step 12: a month's recurring revenue, what moved it, and the plans that began, for a whole range
-- of months at once, from the terms that 12_read_terms.sql has read. A term adds its monthly amount
-- when it starts and takes it back when it ends, so the revenue of a month is a running sum over
-- starts and ends: no row per term and month.

-- name: stage_mrr
INSERT INTO revenue.mrr_staging (run_id, month, currency, plan_code, active_plans, mrr)
WITH months AS (
    SELECT month, row_number() OVER (ORDER BY month) AS place
    FROM revenue.months_staging WHERE run_id = :run_id
),
-- Everything before the range is its opening balance.
per_month AS (
    SELECT currency, plan_id, greatest(e.place, 1) AS place,
           sum(e.plans) AS plans, sum(e.amount) AS amount
    FROM pg_temp.terms_grouped
    CROSS JOIN LATERAL (VALUES
        (starts_in, plans, monthly_amount), (ends_in, -plans, -monthly_amount)
    ) e (place, plans, amount)
    GROUP BY currency, plan_id, greatest(e.place, 1)
),
-- Months in which nothing starts or ends carry the balance on.
running AS (
    SELECT m.month, k.currency, k.plan_id,
           sum(coalesce(d.plans, 0)) OVER w AS active_plans,
           sum(coalesce(d.amount, 0)) OVER w AS mrr
    FROM months m
    CROSS JOIN (SELECT DISTINCT currency, plan_id FROM per_month) k
    LEFT JOIN per_month d USING (place, currency, plan_id)
    WINDOW w AS (PARTITION BY k.currency, k.plan_id ORDER BY m.month)
)
SELECT :run_id, r.month, r.currency, pl.plan_code, r.active_plans, r.mrr
FROM running r
JOIN prepaid.plans pl USING (plan_id)
WHERE r.active_plans <> 0 OR r.mrr <> 0;

-- name: stage_mrr_by_country
INSERT INTO revenue.mrr_by_country_staging
    (run_id, month, currency, country, active_plans, customers, mrr)
WITH months AS (
    SELECT month, row_number() OVER (ORDER BY month) AS place
    FROM revenue.months_staging WHERE run_id = :run_id
),
per_month AS (
    SELECT currency, country, place, sum(plans) AS plans, sum(amount) AS amount,
           sum(customers) AS customers
    FROM (
        SELECT currency, country, greatest(e.place, 1) AS place, e.plans, e.amount, 0 AS customers
        FROM pg_temp.terms_grouped
        CROSS JOIN LATERAL (VALUES
            (starts_in, plans, monthly_amount), (ends_in, -plans, -monthly_amount)
        ) e (place, plans, amount)
        UNION ALL
        -- Who has revenue there for the first time in a while, and who has none any more.
        SELECT c.currency, c.country, coalesce(m.place, 1), 0, 0, sum(came.customers)
        FROM pg_temp.changes_by_country c
        CROSS JOIN LATERAL (SELECT (c.mrr = c.amount)::integer - (c.mrr = 0)::integer) came (customers)
        LEFT JOIN months m USING (month)
        GROUP BY c.currency, c.country, coalesce(m.place, 1)
    ) e
    GROUP BY currency, country, place
),
running AS (
    SELECT m.month, k.currency, k.country,
           sum(coalesce(d.plans, 0)) OVER w AS active_plans,
           sum(coalesce(d.customers, 0)) OVER w AS customers,
           sum(coalesce(d.amount, 0)) OVER w AS mrr
    FROM months m
    CROSS JOIN (SELECT DISTINCT currency, country FROM per_month) k
    LEFT JOIN per_month d USING (place, currency, country)
    WINDOW w AS (PARTITION BY k.currency, k.country ORDER BY m.month)
)
SELECT :run_id, month, currency, country, active_plans, customers, mrr
FROM running
WHERE active_plans <> 0 OR customers <> 0 OR mrr <> 0;

-- name: stage_movements
WITH moved AS (
    SELECT month, currency,
           CASE WHEN month = cohort THEN 'new'
                WHEN mrr = amount THEN 'reactivation'
                WHEN mrr = 0 THEN 'churn'
                WHEN amount > 0 THEN 'expansion'
                ELSE 'contraction' END AS movement,
           count(*) AS customers, sum(amount) AS amount
    FROM pg_temp.customer_changes
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
INSERT INTO revenue.plan_activations_staging
    (run_id, month, currency, plan_code, kind, plans, net_amount)
WITH months AS (
    SELECT month, row_number() OVER (ORDER BY month) AS place
    FROM revenue.months_staging WHERE run_id = :run_id
    -- What is paid in advance begins in the last month, also after :until.
    UNION ALL SELECT CAST(:last_month AS date), count(*) + 1
    FROM revenue.months_staging WHERE run_id = :run_id
)
SELECT :run_id, m.month, g.currency, pl.plan_code, g.kind, sum(g.begun), sum(g.net_amount)
FROM pg_temp.terms_grouped g
JOIN months m ON m.place = g.begins_in
JOIN prepaid.plans pl USING (plan_id)
WHERE g.begun > 0
GROUP BY m.month, g.currency, pl.plan_code, g.kind;

-- name: stage_activations_by_country
INSERT INTO revenue.activations_by_country_staging
    (run_id, month, currency, country, kind, plans, net_amount)
WITH months AS (
    SELECT month, row_number() OVER (ORDER BY month) AS place
    FROM revenue.months_staging WHERE run_id = :run_id
    -- What is paid in advance begins in the last month, also after :until.
    UNION ALL SELECT CAST(:last_month AS date), count(*) + 1
    FROM revenue.months_staging WHERE run_id = :run_id
)
SELECT :run_id, m.month, g.currency, g.country, g.kind, sum(g.begun), sum(g.net_amount)
FROM pg_temp.terms_grouped g
JOIN months m ON m.place = g.begins_in
WHERE g.begun > 0
GROUP BY m.month, g.currency, g.country, g.kind;

-- name: money_returned
-- What providers took back or paid back so far, each event once, whatever was delivered twice or out of
-- order: a function of the set of records, which prepaid.money_taken_back reads as matching does. is_ours:
-- of a payment for an invoice of ours, or the refund of a credit note; the others are of money that
-- belongs to no invoice, or in another currency than the payment.
CREATE TEMPORARY TABLE money_returned ON COMMIT DROP AS
WITH events AS (
    SELECT DISTINCT ON (t.provider, t.provider_ref, t.word, t.occurred_at)
           t.provider, t.provider_ref, t.word AS status, t.occurred_at, t.invoice_number, t.outcome,
           t.credit_note_id, m.amount, m.currency, m.is_ours, m.is_other_currency,
           prepaid.counted_at(t.occurred_at, t.received_at, t.time_doubted) AS moment,
           prepaid.place_in_time(t.status, t.occurred_at, t.time_doubted) AS place
    FROM prepaid.money_taken_back(ARRAY(
        SELECT transaction_id FROM prepaid.transactions
        WHERE (status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed')
               OR lower(status) IN ('canceled', 'cancelled'))
          AND provider <> '' AND provider_ref <> ''
          AND prepaid.business_date(prepaid.counted_at(occurred_at, received_at, time_doubted))
              <= CAST(:as_of AS date))) m
    -- OFFSET keeps this look-up by key, one for each of the few events, and LIMIT those that follow.
    CROSS JOIN LATERAL (SELECT *, prepaid.record_status(status) AS word FROM prepaid.transactions
                        WHERE transaction_id = m.transaction_id OFFSET 0) t
    WHERE m.speaks
    ORDER BY t.provider, t.provider_ref, t.word, t.occurred_at, t.credit_note_id, t.transaction_id
)
SELECT date_trunc('month', prepaid.business_date(e.moment)::timestamp)::date AS month,
       c.currency, e.status AS kind,
       coalesce(e.amount, 0) * CASE e.status WHEN 'ChargebackReversed' THEN -1 ELSE 1 END AS amount,
       e.is_ours AND NOT e.is_other_currency OR asked.by_credit_note AS is_ours,
       e.status = 'Refunded' AND asked.by_credit_note AS by_credit_note,
       revenue.invoice_paid_by(e.provider, e.provider_ref, c.currency) AS invoice_id
FROM events e
-- By its number until it is judged: then it is known whether the credit note has asked for so much.
CROSS JOIN LATERAL (SELECT e.credit_note_id IS NOT NULL
    OR e.status = 'Refunded' AND e.outcome IS NULL AND EXISTS (
        SELECT FROM prepaid.credit_notes n WHERE n.credit_note_number = e.invoice_number)
        AS by_credit_note) asked
-- The last word on whether the payment succeeded; at the same moment Failed is later than Success.
LEFT JOIN LATERAL (
    SELECT w.status
    FROM prepaid.transactions w
    CROSS JOIN LATERAL (
        SELECT prepaid.place_in_time(w.status, w.occurred_at, w.time_doubted) AS place) at
    WHERE e.status = 'Failed'
      AND hashtextextended(w.provider_ref, 0) = hashtextextended(e.provider_ref, 0)
      AND w.provider = e.provider AND w.provider_ref = e.provider_ref
      AND (w.status = 'Success' AND at.place <= e.place
           OR prepaid.record_status(w.status) = 'Failed'
              AND (at.place, coalesce(w.occurred_at, '-infinity')) < (e.place, coalesce(e.occurred_at, '-infinity')))
    ORDER BY at.place DESC, w.status LIMIT 1
) before ON true
JOIN prepaid.currencies c ON c.currency = e.currency
WHERE CASE e.status
    -- Of a time that is not believed, it gives nothing back: finance is asked.
    WHEN 'ChargebackReversed' THEN e.is_ours IS NOT NULL AND isfinite(e.place)
    WHEN 'Failed' THEN before.status = 'Success' AND NOT e.is_other_currency
    ELSE e.is_ours IS NOT NULL OR asked.by_credit_note END;

-- name: stage_reversals
INSERT INTO revenue.payment_reversals_staging (run_id, month, currency, kind, records, amount)
SELECT :run_id, month, currency, kind, count(*), sum(amount)
FROM money_returned
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date) AND is_ours
GROUP BY month, currency, kind;

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
-- The terms counted one by one as they were read: what the running sums must agree with.
INSERT INTO revenue.control_staging (run_id, month, currency, active_plans, mrr, activations)
SELECT :run_id, CAST(:last_month AS date), currency, sum(counted_plans),
       coalesce(sum(counted_mrr), 0), sum(counted_activations)
FROM pg_temp.terms_grouped
GROUP BY currency;
