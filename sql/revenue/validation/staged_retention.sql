-- What must hold for a run's staged renewals, retention, deferred revenue and reconciliation before they
-- are published: each query returns the rows that break its rule.

-- name: one_row_of_renewals_per_month_currency_plan_and_country
SELECT month, currency, plan_code, country, count(*) AS times
FROM {batch} GROUP BY month, currency, plan_code, country HAVING count(*) > 1

-- name: outcomes_add_up_to_the_terms_due
SELECT month, currency, plan_code, country, due,
       on_time + in_grace + reactivated + cancelled + waiting + lapsed AS outcomes
FROM {batch}
WHERE (on_time + in_grace + reactivated + cancelled + waiting + lapsed = due AND due > 0
       AND least(on_time, in_grace, reactivated, cancelled, waiting, lapsed) >= 0) IS NOT TRUE

-- name: terms_due_are_those_that_ended_one_by_one
SELECT coalesce(c.month, (SELECT max(month) FROM revenue.staged_months)) AS month,
       coalesce(r.currency, c.currency) AS currency, r.due, c.ended AS counted
FROM (SELECT currency, sum(due) AS due FROM {batch} batch GROUP BY currency) r
FULL JOIN revenue.staged_retention_control c USING (currency)
WHERE coalesce(r.due, 0) <> coalesce(c.ended, 0)

-- name: nothing_waits_once_the_days_of_grace_are_over
SELECT r.month, r.currency, r.plan_code, r.country, r.waiting
FROM {batch} r
JOIN revenue.staged_months m USING (month)
CROSS JOIN prepaid.installation i
WHERE r.waiting > 0 AND m.as_of >= (m.month + interval '1 month')::date + i.grace_days

-- name: one_row_of_retention_per_month_currency_and_window
SELECT month, currency, window_months, count(*) AS times
FROM {batch} GROUP BY month, currency, window_months HAVING count(*) > 1

-- name: no_more_is_kept_than_there_was
SELECT month, currency, window_months, customers_before, customers_kept, mrr_before, mrr_kept, mrr_now
FROM {batch}
WHERE (customers_kept BETWEEN 0 AND customers_before AND mrr_kept >= 0
       AND mrr_kept <= mrr_before AND mrr_kept <= mrr_now) IS NOT TRUE

-- name: retention_over_a_month_is_what_the_movements_say
SELECT coalesce(r.month, b.month) AS month, coalesce(r.currency, b.currency) AS currency,
       r.mrr_before, b.opening_mrr, r.mrr_now, b.opening_mrr + coalesce(m.amount, 0) AS moved_to
FROM (SELECT * FROM {batch} batch WHERE window_months = 1) r
FULL JOIN (SELECT * FROM revenue.staged_mrr_bridge WHERE opening_mrr > 0) b
    ON b.month = r.month AND b.currency = r.currency
LEFT JOIN (
    SELECT month, currency, sum(amount) AS amount FROM revenue.staged_mrr_movements
    WHERE movement IN ('expansion', 'contraction', 'churn')
    GROUP BY month, currency
) m ON m.month = b.month AND m.currency = b.currency
WHERE (r.mrr_before = b.opening_mrr
       AND r.mrr_now = b.opening_mrr + coalesce(m.amount, 0)) IS NOT TRUE

-- name: one_row_per_month_currency_and_cohort
SELECT month, currency, cohort, count(*) AS times
FROM {batch} GROUP BY month, currency, cohort HAVING count(*) > 1

-- name: no_more_of_a_cohort_is_kept_than_there_was
SELECT month, currency, cohort, customers, customers_kept, mrr, mrr_kept, mrr_now
FROM {batch}
WHERE (customers_kept BETWEEN 0 AND customers AND mrr_kept >= 0
       AND mrr_kept <= mrr AND mrr_kept <= mrr_now) IS NOT TRUE

-- name: cohorts_add_up_to_customers_and_mrr
SELECT coalesce(c.month, b.month) AS month, coalesce(c.currency, b.currency) AS currency,
       c.customers, b.closing_customers, c.mrr, b.closing_mrr
FROM (
    SELECT month, currency, sum(customers_kept) AS customers, sum(mrr_now) AS mrr
    FROM {batch} batch GROUP BY month, currency
) c
FULL JOIN revenue.staged_mrr_bridge b ON b.month = c.month AND b.currency = c.currency
WHERE coalesce(c.customers, 0) <> coalesce(b.closing_customers, 0)
   OR coalesce(c.mrr, 0) <> coalesce(b.closing_mrr, 0)

-- name: one_row_of_deferred_revenue_per_month_and_currency
SELECT month, currency, count(*) AS times
FROM {batch} GROUP BY month, currency HAVING count(*) > 1

-- name: billed_less_recognised_and_refunded_is_the_change_of_what_is_owed
SELECT month, currency, opening, billed, recognised, refunded, closing
FROM {batch}
WHERE (opening + billed - recognised - refunded = closing) IS NOT TRUE

-- name: a_month_owes_at_first_what_the_last_one_owed
SELECT month, currency, opening, closed
FROM (
    SELECT s.month, k.currency, coalesce(d.opening, 0) AS opening,
           lag(coalesce(d.closing, 0)) OVER (PARTITION BY k.currency ORDER BY s.month) AS closed
    FROM revenue.staged_months s
    CROSS JOIN (SELECT DISTINCT currency FROM {batch} batch) k
    LEFT JOIN (SELECT * FROM {batch} batch) d ON d.month = s.month AND d.currency = k.currency
) d
WHERE opening <> closed

-- name: what_is_owed_is_the_terms_counted_one_by_one
SELECT coalesce(d.month, c.month) AS month, coalesce(d.currency, c.currency) AS currency,
       d.closing, c.deferred AS counted
FROM (SELECT * FROM {batch} batch WHERE month = (SELECT max(month) FROM revenue.staged_months)) d
FULL JOIN revenue.staged_retention_control c ON c.month = d.month AND c.currency = d.currency
WHERE coalesce(d.closing, 0) <> coalesce(c.deferred, 0)

-- name: nobody_is_owed_less_than_nothing
SELECT month, currency, opening, closing FROM {batch} WHERE opening < 0 OR closing < 0

-- name: one_row_per_month_currency_and_line
SELECT month, currency, line, count(*) AS times
FROM {batch} GROUP BY month, currency, line HAVING count(*) > 1

-- name: every_term_that_was_billed_has_its_invoice
SELECT r.month, r.currency, r.amount AS difference, p.service_plan_id, p.net_amount, p.invoiced_net
FROM {batch} r
LEFT JOIN LATERAL (
    SELECT p.service_plan_id, p.net_amount, i.net AS invoiced_net
    FROM prepaid.service_plans p
    LEFT JOIN LATERAL (
        SELECT i.net FROM prepaid.invoices i WHERE i.service_plan_id = p.service_plan_id
        ORDER BY i.status = 'Void', i.invoice_id DESC LIMIT 1) i ON true
    WHERE p.origin = 'pipeline' AND p.currency = r.currency
      AND p.activated_on >= r.month AND p.activated_on < r.month + interval '1 month'
      AND p.net_amount IS DISTINCT FROM i.net
    ORDER BY p.service_plan_id LIMIT 5
) p ON true
WHERE r.line = 'invoices_remainder' AND r.amount <> 0

-- name: every_invoice_is_paid_with_money_that_came
SELECT r.month, r.currency, r.amount AS difference, i.invoice_number, i.payable, i.came
FROM {batch} r
LEFT JOIN LATERAL (
    SELECT i.invoice_number, i.payable, coalesce(sum(t.amount), 0) AS came
    FROM prepaid.invoices i
    LEFT JOIN prepaid.transactions t
        ON t.invoice_id = i.invoice_id AND t.status = 'Success' AND t.outcome = 'matched'
    WHERE i.status = 'Paid' AND i.currency = r.currency
    GROUP BY i.invoice_id
    HAVING coalesce(sum(t.amount), 0) < i.payable
    ORDER BY i.invoice_id LIMIT 5
) i ON true
WHERE r.line = 'cash_remainder' AND r.amount <> 0
