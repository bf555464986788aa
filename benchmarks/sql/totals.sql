-- What a run has written: rows, amounts, and a sum of hashes over the contents that must agree.
-- Both sides must give the same answer, or the two speeds are not about the same work.
SELECT 'service_plans' AS what, concat_ws(' ', origin, kind, status) AS which, count(*) AS rows,
       sum(net_amount) AS amount,
       sum(hashtext(concat_ws('|', subscription_id, previous_plan_id, start_date, end_date,
           planned_start, anchor_date, opened_on, currency, price, addons, customer_name, email,
           country, tax_exempt, plan_name, tax_class, trim_scale(recurring_amount), activated_on, quantity,
           price_includes_tax, discounts, tax_exempt_reason,
           retrieved_at IS NULL, invoiced_at IS NULL, activated_at IS NULL))) AS contents
FROM prepaid.service_plans GROUP BY origin, kind, status
UNION ALL
SELECT 'charges', currency, count(*), sum(net + tax),
       sum(hashtext(concat_ws('|', p.subscription_id, line_number, description, net, ch.tax_class,
           tax_rate, tax, calculated_for, ch.quantity, trim_scale(unit_price), list_amount, discount,
           includes_tax, recurring_net)))
FROM prepaid.charges ch JOIN prepaid.service_plans p USING (service_plan_id, currency)
GROUP BY currency
UNION ALL
SELECT 'invoices', concat_ws(' ', i.status, i.currency), count(*), sum(total),
       sum(hashtext(concat_ws('|', p.subscription_id, i.customer_id, net, tax, tax_note, issued_on,
           paid_on, transaction_id IS NULL)))
FROM prepaid.invoices i JOIN prepaid.service_plans p USING (service_plan_id)
GROUP BY i.status, i.currency
UNION ALL
SELECT 'invoice_lines', i.currency, count(*), sum(l.net + l.tax),
       sum(hashtext(concat_ws('|', p.subscription_id, line_number, description, l.net, l.tax_class,
           tax_rate, l.tax, l.quantity, trim_scale(unit_price), list_amount, discount, includes_tax)))
FROM prepaid.invoice_lines l JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.service_plans p USING (service_plan_id) GROUP BY i.currency
UNION ALL
SELECT 'invoice_series', series, year, last_number, 0 FROM prepaid.invoice_series
UNION ALL
SELECT 'tasks', concat_ws(' ', k.kind, k.status, decision, assigned_role), count(*), 0,
       sum(hashtext(concat_ws('|', p.subscription_id, k.opened_on, decided_by)))
FROM prepaid.tasks k JOIN prepaid.service_plans p USING (service_plan_id)
GROUP BY k.kind, k.status, decision, assigned_role
UNION ALL
SELECT 'sign_offs', decision, count(*), 0, sum(hashtext(decided_by))
FROM prepaid.sign_offs GROUP BY decision
UNION ALL
SELECT 'transactions', outcome, count(*), sum(amount), sum(hashtext(invoice_number))
FROM prepaid.transactions GROUP BY outcome
UNION ALL
SELECT 'audit_log', a.event, count(*), 0,
       sum(hashtext(concat_ws('|', p.subscription_id, entity, before, after, actor, as_of)))
FROM prepaid.audit_log a LEFT JOIN prepaid.service_plans p USING (service_plan_id) GROUP BY a.event
UNION ALL
SELECT 'emails', e.status, count(*), 0,
       sum(hashtext(concat_ws('|', p.subscription_id, template, occasion, recipient)))
FROM prepaid.emails e JOIN prepaid.service_plans p USING (service_plan_id) GROUP BY e.status
UNION ALL
SELECT 'unsettled_plans', CASE WHEN batch_id IS NULL THEN 'free' ELSE 'claimed' END, count(*), 0, 0
FROM prepaid.unsettled_plans GROUP BY batch_id IS NULL
UNION ALL
SELECT 'holds', reason_code, count(*), 0, 0 FROM prepaid.holds GROUP BY reason_code
ORDER BY what, which;
