-- What the revenue SQL is measured against, over the same terms.

-- name: running_sum
-- The balance per currency after every day on which a term starts or ends.
SELECT currency, day, sum(sum(amount)) OVER (PARTITION BY currency ORDER BY day)
FROM (
    SELECT currency, start_date AS day, monthly_amount AS amount FROM prepaid.service_plans
    UNION ALL
    SELECT currency, end_date, -monthly_amount FROM prepaid.service_plans
) e
GROUP BY currency, day

-- name: window
-- Every customer's balance after each start of a term.
SELECT max(balance), max(number)
FROM (
    SELECT sum(monthly_amount) OVER w AS balance, row_number() OVER w AS number
    FROM prepaid.service_plans
    WINDOW w AS (PARTITION BY customer_id, currency ORDER BY start_date)
) b
