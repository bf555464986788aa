-- Step 13: what was read of the months is staged, to be validated before it is published.

-- name: stage_months
INSERT INTO revenue.months_staging (run_id, month, as_of)
SELECT :run_id, month, as_of FROM revenue.months
WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date);

-- name: stage
INSERT INTO revenue.monthly_report_staging
    (run_id, month, currency, new_plans, renewals, reactivations, opening_mrr, mrr, active_plans,
     customers, figures, changes)
SELECT :run_id, r.month, r.currency, r.new_plans, r.renewals, r.reactivations, r.opening_mrr, r.mrr,
       r.active_plans, r.customers, r.figures, r.changes
FROM jsonb_to_recordset(CAST(:reports AS jsonb)) r (
    month date, currency text, new_plans bigint, renewals bigint, reactivations bigint,
    opening_mrr numeric, mrr numeric, active_plans bigint, customers bigint, figures jsonb,
    changes bigint);
