-- What must hold for the tables that the figures are made from. Each query returns the rows that
-- break its rule, by their keys: no personal data. prepaid.as_of() is the run's business date;
-- limits are settings of the session, named in rules.py.

-- name: plans_belong_to_the_customer_of_their_subscription
SELECT p.service_plan_id FROM (SELECT * FROM {batch} batch) p
JOIN prepaid.subscriptions s USING (subscription_id)
WHERE p.customer_id <> s.customer_id

-- name: plans_are_in_the_currency_of_their_customer
SELECT p.service_plan_id, p.currency, c.currency AS customer_currency
FROM (SELECT * FROM {batch} batch) p JOIN prepaid.customers c USING (customer_id)
WHERE p.activated_on IS NOT NULL AND p.currency <> c.currency

-- name: amounts_have_the_decimals_of_their_currency
SELECT p.service_plan_id, p.currency, p.net_amount
FROM (SELECT * FROM {batch} batch) p JOIN prepaid.currencies c USING (currency)
WHERE p.net_amount <> round(p.net_amount, c.exponent)

-- name: activated_plans_are_paid_or_held
SELECT p.service_plan_id FROM (SELECT * FROM {batch}) p
WHERE p.origin = 'pipeline' AND p.status IN ('Active', 'Expired')
  AND NOT EXISTS (SELECT FROM prepaid.invoices i
                  WHERE i.service_plan_id = p.service_plan_id AND i.status = 'Paid')
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL)

-- name: terms_are_as_long_as_their_plan_says
-- A month is 28 to 31 days long: what lies outside is a date that was typed wrong. A term that was cut
-- counts as it was sold.
SELECT p.service_plan_id, p.start_date, p.end_date, p.term_months, p.term_days
FROM (SELECT *, coalesce(full_end_date, end_date) AS sold_until FROM {batch}) p
WHERE p.activated_on IS NOT NULL
  AND NOT CASE WHEN p.term_days > 0 THEN p.sold_until - p.start_date = p.term_days
          ELSE p.sold_until BETWEEN p.start_date + make_interval(months => p.term_months) - interval '3 days'
                              AND p.start_date + make_interval(months => p.term_months) + interval '3 days'
          END

-- name: invoices_are_the_sum_of_their_lines
SELECT i.invoice_number, i.net, l.net AS net_of_lines, i.tax, l.tax AS tax_of_lines
FROM (SELECT * FROM {batch} batch) i
LEFT JOIN (
    SELECT invoice_id, sum(net) AS net, sum(tax) AS tax FROM prepaid.invoice_lines GROUP BY 1
) l USING (invoice_id)
WHERE (i.net, i.tax) IS DISTINCT FROM (l.net, l.tax)

-- name: payment_records_get_an_outcome_in_time
SELECT t.transaction_id, t.received_at FROM (SELECT * FROM {batch}) t
WHERE t.outcome IS NULL
  AND t.received_at < prepaid.as_of() - current_setting('prepaid.record_days')::integer

-- name: pending_and_unknown_payments_are_cleared_up_in_time
-- A record that waits has no task: the provider's next word is expected. When none comes, somebody asks.
SELECT t.transaction_id, t.status, t.invoice_number, t.received_at FROM (SELECT * FROM {batch}) t
WHERE t.outcome = 'waiting'
  AND t.received_at < prepaid.as_of() - current_setting('prepaid.waiting_days')::integer

-- name: tasks_are_decided_in_time
SELECT k.task_id, k.kind, k.opened_on FROM (SELECT * FROM {batch}) k
WHERE k.status = 'Open'
  AND k.opened_on < prepaid.as_of() - current_setting('prepaid.task_days')::integer

-- name: confirmations_are_delivered
SELECT e.email_id, e.service_plan_id, e.template, e.attempts FROM (SELECT * FROM {batch}) e
WHERE e.status = 'failed'

-- name: activated_plans_are_in_the_provisioning_log
SELECT p.service_plan_id FROM prepaid.service_plans p
WHERE p.activated_on IS NOT NULL
  AND EXISTS (SELECT FROM prepaid.invoices i
              WHERE i.service_plan_id = p.service_plan_id AND i.status = 'Paid')
  AND NOT EXISTS (SELECT FROM prepaid.unsettled_plans u WHERE u.service_plan_id = p.service_plan_id)
  AND NOT EXISTS (SELECT FROM (SELECT * FROM {batch}) a WHERE a.service_plan_id = p.service_plan_id
                  AND a.event = 'service_provisioned')

-- name: plans_that_renew_have_a_price
-- In the customer's currency, on the business date; where a price was agreed none is needed.
SELECT DISTINCT l.plan_code, c.currency
FROM (SELECT * FROM {batch} batch) l
JOIN prepaid.subscriptions s USING (plan_id)
JOIN prepaid.customers c USING (customer_id)
WHERE s.auto_renew AND s.cancelled_on IS NULL AND s.price IS NULL
  AND NOT EXISTS (SELECT FROM prepaid.plan_price_periods t
                  WHERE t.plan_id = l.plan_id AND t.currency = c.currency AND t.price IS NOT NULL
                    AND t.valid_from <= prepaid.as_of() AND t.valid_until > prepaid.as_of())

-- name: countries_of_customers_have_a_tax_rate
-- A plan of theirs would be held. Who is exempt needs none.
SELECT DISTINCT c.country, l.tax_class
FROM prepaid.subscriptions s
JOIN prepaid.customers c USING (customer_id)
JOIN prepaid.plans l USING (plan_id)
WHERE s.auto_renew AND s.cancelled_on IS NULL AND NOT c.tax_exempt
  AND NOT EXISTS (SELECT FROM (SELECT * FROM {batch} batch) r
                  WHERE r.country = c.country AND r.tax_class = l.tax_class
                    AND r.valid_from <= prepaid.as_of())

-- name: agreed_prices_have_the_decimals_of_their_currency
SELECT s.subscription_id, k.currency, s.price
FROM (SELECT * FROM {batch} batch) s
JOIN prepaid.customers c USING (customer_id)
JOIN prepaid.currencies k USING (currency)
WHERE s.price <> round(s.price, k.exponent)

-- name: held_plans_are_released_in_time
SELECT h.hold_id, h.service_plan_id, h.reason_code, h.held_at FROM (SELECT * FROM {batch}) h
WHERE h.released_at IS NULL
  AND h.held_at < prepaid.as_of() - current_setting('prepaid.hold_days')::integer

-- name: charges_are_what_was_invoiced
SELECT i.invoice_number, i.net, ch.net AS net_of_charges, i.tax, ch.tax AS tax_of_charges
FROM prepaid.invoices i
LEFT JOIN (
    SELECT service_plan_id, sum(net) AS net, sum(tax) AS tax FROM (SELECT * FROM {batch} batch) lines GROUP BY 1
) ch USING (service_plan_id)
WHERE i.status <> 'Void' AND (i.net, i.tax) IS DISTINCT FROM (ch.net, ch.tax)

-- name: what_is_approved_was_signed
-- The decision on a task is that of its last sign-off.
SELECT k.task_id, k.kind, k.decision FROM prepaid.tasks k
WHERE k.decision IS NOT NULL
  AND k.decision IS DISTINCT FROM (SELECT s.decision FROM (SELECT * FROM {batch}) s
                                   WHERE s.task_id = k.task_id ORDER BY s.sign_off_id DESC LIMIT 1)
