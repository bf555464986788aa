-- What must hold for a report before it is published: what a reader can add up on the page does.
-- Each query returns the rows that break its rule.

-- name: one_report_per_month_and_currency
SELECT month, currency, count(*) AS times
FROM {batch} GROUP BY month, currency HAVING count(*) > 1

-- name: the_bridge_adds_up_as_shown
SELECT month, currency, opening_mrr, mrr, moved
FROM (
    SELECT r.*, (SELECT coalesce(sum((m ->> 'amount')::numeric), 0)
                 FROM jsonb_array_elements(r.figures -> 'movements') m) AS moved
    FROM (SELECT * FROM {batch}) r
) r
WHERE opening_mrr + moved <> mrr

-- name: plans_add_up_to_the_mrr_as_shown
SELECT month, currency, mrr, active_plans, of_plans, counted
FROM (
    SELECT r.*, p.of_plans, p.counted
    FROM (SELECT * FROM {batch} batch) r CROSS JOIN LATERAL (
        SELECT coalesce(sum((p ->> 'mrr')::numeric), 0) AS of_plans,
               coalesce(sum((p ->> 'active_plans')::bigint), 0) AS counted
        FROM jsonb_array_elements(r.figures -> 'plans') p) p
) r
WHERE mrr <> of_plans OR active_plans <> counted

-- name: countries_add_up_to_the_headline
-- A month that an older release computed has no countries: null.
SELECT month, currency, mrr, active_plans, of_countries, counted, began
FROM (
    SELECT r.*, c.of_countries, c.counted, c.began
    FROM (SELECT * FROM {batch} batch) r CROSS JOIN LATERAL (
        SELECT coalesce(sum((c ->> 'mrr')::numeric), 0) AS of_countries,
               coalesce(sum((c ->> 'active_plans')::bigint), 0) AS counted,
               coalesce(sum((SELECT sum((k.value ->> 'plans')::bigint)
                             FROM jsonb_each(c -> 'kinds') k)), 0) AS began
        FROM jsonb_array_elements(r.figures -> 'countries') c) c
    WHERE jsonb_typeof(r.figures -> 'countries') = 'array'
) r
WHERE mrr <> of_countries OR active_plans <> counted
   OR new_plans + renewals + reactivations + changes <> began

-- name: activations_add_up_to_the_headline
SELECT month, currency, new_plans, renewals, reactivations, changes, of_plans
FROM (
    SELECT r.*, (SELECT coalesce(sum((a ->> 'plans')::bigint), 0)
                 FROM jsonb_array_elements(r.figures -> 'activations') a) AS of_plans
    FROM (SELECT * FROM {batch}) r
) r
WHERE new_plans + renewals + reactivations + changes <> of_plans

-- name: the_report_shows_the_published_mrr
SELECT r.month, r.currency, r.mrr, f.mrr AS published
FROM (SELECT * FROM {batch} batch) r
JOIN prepaid.currencies c USING (currency)
LEFT JOIN (
    SELECT month, currency, sum(mrr) AS mrr FROM revenue.mrr GROUP BY month, currency
) f USING (month, currency)
WHERE r.mrr <> round(coalesce(f.mrr, 0), c.exponent)

-- name: the_report_shows_what_was_taken_back
SELECT r.month, r.currency, shown.records, shown.amount, taken.records AS published_records,
       taken.amount AS published
FROM (SELECT * FROM {batch} batch) r
JOIN prepaid.currencies c USING (currency)
CROSS JOIN LATERAL (
    SELECT (r.figures -> 'reversals' ->> 'records')::bigint AS records,
           (r.figures -> 'reversals' ->> 'amount')::numeric AS amount) shown
CROSS JOIN LATERAL (
    SELECT coalesce(sum(p.records), 0) AS records, coalesce(sum(p.amount), 0) AS amount
    FROM revenue.payment_reversals p WHERE (p.month, p.currency) = (r.month, r.currency)) taken
WHERE shown.records IS DISTINCT FROM taken.records
   OR shown.amount IS DISTINCT FROM round(taken.amount, c.exponent)

-- name: renewals_add_up_as_shown
-- Null in a month that an older release computed, as below.
SELECT month, currency, due, outcomes, of_plans, of_countries
FROM (
    SELECT r.month, r.currency, (f.renewals ->> 'due')::bigint AS due,
           (SELECT sum((f.renewals ->> outcome)::bigint)
            FROM unnest(ARRAY['on_time', 'in_grace', 'reactivated', 'lapsed', 'cancelled', 'waiting'])
                outcome) AS outcomes,
           (SELECT coalesce(sum((p ->> 'due')::bigint), 0)
            FROM jsonb_array_elements(f.renewals -> 'plans') p) AS of_plans,
           (SELECT coalesce(sum((c ->> 'due')::bigint), 0)
            FROM jsonb_array_elements(f.renewals -> 'countries') c) AS of_countries
    FROM (SELECT * FROM {batch} batch) r
    CROSS JOIN LATERAL (SELECT r.figures -> 'renewals' AS renewals) f
    WHERE jsonb_typeof(f.renewals) = 'object'
) r
WHERE (due = outcomes AND due = of_plans AND due = of_countries) IS NOT TRUE

-- name: cohorts_add_up_to_the_mrr_as_shown
SELECT month, currency, mrr, of_cohorts, customers, counted
FROM (
    SELECT r.*, c.of_cohorts, c.counted
    FROM (SELECT * FROM {batch} batch) r CROSS JOIN LATERAL (
        SELECT coalesce(sum((c ->> 'mrr_now')::numeric), 0) AS of_cohorts,
               coalesce(sum((c ->> 'customers_kept')::bigint), 0) AS counted
        FROM jsonb_array_elements(r.figures -> 'cohorts') c) c
    WHERE jsonb_typeof(r.figures -> 'cohorts') = 'array'
) r
WHERE mrr <> of_cohorts OR customers <> counted

-- name: deferred_revenue_and_its_reconciliation_add_up_as_shown
SELECT month, currency, opening, billed, recognised, refunded, closing, invoices_net, cash, lines
FROM (
    SELECT r.month, r.currency, d.*, l.*
    FROM (SELECT * FROM {batch} batch) r
    CROSS JOIN LATERAL jsonb_to_record(r.figures -> 'deferred') d (
        opening numeric, billed numeric, recognised numeric, refunded numeric, closing numeric)
    CROSS JOIN LATERAL (
        SELECT sum(amount) FILTER (WHERE line = 'billed') AS first,
               sum(amount) FILTER (WHERE line = 'invoices_net') AS invoices_net,
               sum(amount) FILTER (WHERE line = 'cash') AS cash,
               sum(amount) FILTER (WHERE line IN (
                   'billed', 'imported', 'waiting', 'invoices_remainder')) AS documents,
               sum(amount) FILTER (WHERE line NOT IN (
                   'cash', 'cash_received', 'cash_returned', 'invoices_total', 'invoices_net')) AS lines
        FROM jsonb_to_recordset(r.figures -> 'reconciliation') e (line text, amount numeric)) l
    WHERE jsonb_typeof(r.figures -> 'deferred') = 'object'
) r
WHERE opening + billed - recognised - refunded <> closing
   OR (first = billed AND documents = invoices_net AND lines = cash) IS NOT TRUE
