-- Every closed month still shows the truth: computed again, its figures are the published ones.
-- What is staged here was computed by prepaid_pipeline/revenue/late_data.py, in this transaction.
WITH closed AS (
    SELECT v.month, max(v.version) AS version
    FROM revenue.report_versions v JOIN revenue.months m USING (month)
    WHERE v.version > 0 AND m.as_of <= CAST(:as_of AS date)
    GROUP BY v.month
), known AS (
    -- Not those that an older release computed, which knew nothing of renewals and deferred revenue.
    SELECT month FROM revenue.months WHERE fingerprint IS NOT NULL
), differing AS (
    SELECT month FROM (
        SELECT month, currency, plan_code, active_plans, mrr, 1 AS side FROM revenue.mrr
        UNION ALL
        SELECT month, currency, plan_code, active_plans, mrr, -1 FROM revenue.staged_mrr
    ) f GROUP BY month, currency, plan_code, active_plans, mrr HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, movement, customers, amount, 1 AS side FROM revenue.mrr_movements
        UNION ALL
        SELECT month, currency, movement, customers, amount, -1 FROM revenue.staged_mrr_movements
    ) f GROUP BY month, currency, movement, customers, amount HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, plan_code, kind, plans, net_amount, 1 AS side
        FROM revenue.plan_activations
        UNION ALL
        SELECT month, currency, plan_code, kind, plans, net_amount, -1
        FROM revenue.staged_plan_activations
    ) f GROUP BY month, currency, plan_code, kind, plans, net_amount HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, country, active_plans, customers, mrr, 1 AS side
        FROM revenue.mrr_by_country
        UNION ALL
        SELECT month, currency, country, active_plans, customers, mrr, -1
        FROM revenue.staged_mrr_by_country
        -- A month of an older release is not split by country yet.
        WHERE month IN (SELECT month FROM revenue.mrr_by_country)
    ) f GROUP BY month, currency, country, active_plans, customers, mrr HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, country, kind, plans, net_amount, 1 AS side
        FROM revenue.activations_by_country
        UNION ALL
        SELECT month, currency, country, kind, plans, net_amount, -1
        FROM revenue.staged_activations_by_country
        WHERE month IN (SELECT month FROM revenue.activations_by_country)
    ) f GROUP BY month, currency, country, kind, plans, net_amount HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, kind, records, amount, 1 AS side FROM revenue.payment_reversals
        UNION ALL
        SELECT month, currency, kind, records, amount, -1 FROM revenue.staged_payment_reversals
    ) f GROUP BY month, currency, kind, records, amount HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, credit_notes, net, tax, 1 AS side FROM revenue.credit_notes_issued
        UNION ALL
        SELECT month, currency, credit_notes, net, tax, -1 FROM revenue.staged_credit_notes_issued
    ) f GROUP BY month, currency, credit_notes, net, tax HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, plan_code, country, due, on_time, in_grace, reactivated, cancelled,
               waiting, lapsed, 1 AS side
        FROM revenue.renewal_outcomes
        UNION ALL
        SELECT month, currency, plan_code, country, due, on_time, in_grace, reactivated, cancelled,
               waiting, lapsed, -1
        FROM revenue.staged_renewal_outcomes WHERE month IN (SELECT month FROM known)
    ) f
    GROUP BY month, currency, plan_code, country, due, on_time, in_grace, reactivated, cancelled,
           waiting, lapsed
    HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, window_months, customers_before, customers_kept, mrr_before, mrr_kept,
               mrr_now, 1 AS side
        FROM revenue.retention
        UNION ALL
        SELECT month, currency, window_months, customers_before, customers_kept, mrr_before, mrr_kept,
               mrr_now, -1
        FROM revenue.staged_retention WHERE month IN (SELECT month FROM known)
    ) f
    GROUP BY month, currency, window_months, customers_before, customers_kept, mrr_before, mrr_kept,
           mrr_now
    HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, cohort, customers, customers_kept, mrr, mrr_kept, mrr_now, 1 AS side
        FROM revenue.cohorts
        UNION ALL
        SELECT month, currency, cohort, customers, customers_kept, mrr, mrr_kept, mrr_now, -1
        FROM revenue.staged_cohorts WHERE month IN (SELECT month FROM known)
    ) f
    GROUP BY month, currency, cohort, customers, customers_kept, mrr, mrr_kept, mrr_now
    HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, opening, billed, recognised, refunded, closing, 1 AS side
        FROM revenue.deferred_revenue
        UNION ALL
        SELECT month, currency, opening, billed, recognised, refunded, closing, -1
        FROM revenue.staged_deferred_revenue WHERE month IN (SELECT month FROM known)
    ) f
    GROUP BY month, currency, opening, billed, recognised, refunded, closing
    HAVING sum(side) <> 0
    UNION
    SELECT month FROM (
        SELECT month, currency, line, amount, 1 AS side
        FROM revenue.reconciliation
        UNION ALL
        SELECT month, currency, line, amount, -1
        FROM revenue.staged_reconciliation WHERE month IN (SELECT month FROM known)
    ) f
    GROUP BY month, currency, line, amount
    HAVING sum(side) <> 0
    UNION
    -- An exchange rate was corrected, or has come, since the month was converted; as long as reports
    -- are still made in that currency.
    SELECT v.month
    FROM revenue.report_versions v
    JOIN closed c ON c.month = v.month AND c.version = v.version
    CROSS JOIN LATERAL (SELECT v.document ->> 'reporting_currency' AS currency) into_
    WHERE into_.currency = (SELECT latest.document ->> 'reporting_currency'
                            FROM revenue.report_versions latest ORDER BY latest.published_at DESC LIMIT 1)
      AND CASE WHEN jsonb_typeof(v.document -> 'converted_missing') = 'array' THEN NOT EXISTS (
              SELECT FROM jsonb_array_elements_text(v.document -> 'converted_missing') missing
              WHERE missing NOT IN (
                  SELECT e.currency || ' ' || to_char(e.month, 'YYYY-MM') FROM revenue.exchange_rates e
                  WHERE e.reporting_currency = into_.currency))
          ELSE EXISTS (
              SELECT FROM jsonb_path_query(v.document, '$.converted.rates[*]') used
              JOIN revenue.exchange_rates e
                  ON e.currency = used ->> 'currency' AND e.reporting_currency = into_.currency
              WHERE e.month = v.month AND e.rate <> (used ->> 'rate')::numeric
                 OR e.month = v.month - interval '1 month'
                     AND e.rate <> (used ->> 'opening_rate')::numeric) END
), changed AS (
    -- Months in a row that are at the same version have the same number here.
    SELECT month, version,
           extract(year FROM month) * 12 + extract(month FROM month)
               - row_number() OVER (PARTITION BY version ORDER BY month) AS island
    FROM closed JOIN differing USING (month)
)
SELECT format('%s changed since version %s: prepaid backfill %s %s',
              to_char(min(month), 'YYYY-MM')
                  || CASE WHEN count(*) > 1 THEN ' to ' || to_char(max(month), 'YYYY-MM') ELSE '' END,
              version, to_char(min(month), 'YYYY-MM'), to_char(max(month), 'YYYY-MM')) AS finding,
       min(month) AS first_month, max(month) AS last_month
FROM changed
GROUP BY version, island
ORDER BY min(month);
