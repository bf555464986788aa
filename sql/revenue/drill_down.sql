-- 'prepaid drill': the service plans behind a month's figure, and the figure as it was published. A
-- parameter that is null asks for all.

-- name: mrr
SELECT service_plan_id, customer_ref, subscription_ref, plan_code, country, kind, start_date, end_date,
       currency, trim_scale(amount) AS amount
FROM revenue.plans_behind_mrr(:month)
WHERE (CAST(:currency AS text) IS NULL OR currency = :currency)
  AND (CAST(:plan AS text) IS NULL OR plan_code = :plan)
  AND (CAST(:country AS text) IS NULL OR country = :country)
ORDER BY currency, customer_ref, start_date, service_plan_id;

-- name: movements
SELECT movement, service_plan_id, customer_ref, subscription_ref, plan_code, country, start_date,
       end_date, currency, trim_scale(amount) AS amount
FROM revenue.plans_behind_movements(:month)
WHERE (CAST(:currency AS text) IS NULL OR currency = :currency)
  AND (CAST(:movement AS text) IS NULL OR movement = :movement)
  AND (CAST(:plan AS text) IS NULL OR plan_code = :plan)
  AND (CAST(:country AS text) IS NULL OR country = :country)
ORDER BY currency, array_position(
    ARRAY['new', 'reactivation', 'expansion', 'contraction', 'churn'], movement),
    customer_ref, start_date, service_plan_id;

-- name: activations
SELECT kind, began_on, service_plan_id, customer_ref, subscription_ref, plan_code, country, start_date,
       end_date, currency, trim_scale(amount) AS amount
FROM revenue.plans_behind_activations(:month)
WHERE (CAST(:currency AS text) IS NULL OR currency = :currency)
  AND (CAST(:kind AS text) IS NULL OR kind = :kind)
  AND (CAST(:plan AS text) IS NULL OR plan_code = :plan)
  AND (CAST(:country AS text) IS NULL OR country = :country)
ORDER BY currency, array_position(ARRAY['new', 'renewal', 'reactivation', 'change'], kind),
    began_on, service_plan_id;

-- name: credit_notes
SELECT credit_note_number, issued_on, service_plan_id, customer_ref, subscription_ref, plan_code,
       country, currency, net, tax, amount
FROM revenue.plans_behind_credit_notes(:month)
WHERE (CAST(:currency AS text) IS NULL OR currency = :currency)
  AND (CAST(:plan AS text) IS NULL OR plan_code = :plan)
  AND (CAST(:country AS text) IS NULL OR country = :country)
ORDER BY currency, issued_on, credit_note_number;

-- Published figures are by plan or by country: one of the two is null here.

-- name: published_mrr
SELECT currency, sum(plans)::bigint AS count, sum(amount) AS amount
FROM (
    SELECT currency, active_plans AS plans, mrr AS amount FROM revenue.mrr
    WHERE month = :month AND CAST(:country AS text) IS NULL
      AND (CAST(:plan AS text) IS NULL OR plan_code = :plan)
    UNION ALL
    SELECT currency, active_plans, mrr FROM revenue.mrr_by_country
    WHERE month = :month AND country = :country
) f
WHERE CAST(:currency AS text) IS NULL OR currency = :currency
GROUP BY currency;

-- name: published_movements
SELECT currency, sum(customers)::bigint AS count, sum(amount) AS amount FROM revenue.mrr_movements
WHERE month = :month AND (CAST(:movement AS text) IS NULL OR movement = :movement)
  AND (CAST(:currency AS text) IS NULL OR currency = :currency)
GROUP BY currency;

-- name: published_activations
SELECT currency, sum(plans)::bigint AS count, sum(amount) AS amount
FROM (
    SELECT currency, kind, plans, net_amount AS amount FROM revenue.plan_activations
    WHERE month = :month AND CAST(:country AS text) IS NULL
      AND (CAST(:plan AS text) IS NULL OR plan_code = :plan)
    UNION ALL
    SELECT currency, kind, plans, net_amount FROM revenue.activations_by_country
    WHERE month = :month AND country = :country
) f
WHERE (CAST(:currency AS text) IS NULL OR currency = :currency)
  AND (CAST(:kind AS text) IS NULL OR kind = :kind)
GROUP BY currency;

-- name: published_credit_notes
SELECT currency, credit_notes AS count, total AS amount FROM revenue.credit_notes_issued
WHERE month = :month AND (CAST(:currency AS text) IS NULL OR currency = :currency);

-- name: as_of
SELECT as_of FROM revenue.months WHERE month = :month;

-- name: exponents
SELECT currency, exponent FROM prepaid.currencies;
