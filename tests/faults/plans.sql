-- Due plans in four situations, many at a time, and what became of each plan, in one value.
-- The number behind the letter of a reference says which situation it is: 0 a plain renewal, 1 one that
-- costs nothing, 2 one with quantity, add-on, discount and two partial payments, 3 one without an
-- address (held), 4 a purchase, 5 a change of plan that is paid with days of the old term.

-- name: customers
INSERT INTO prepaid.customers (customer_ref, name, email, country, currency)
SELECT format('F%s-%s', situation, n), 'Customer ' || n,
       CASE WHEN situation <> 3 THEN format('f%s@example.com', n) END, 'US', 'USD'
FROM generate_series(CAST(:first AS integer), :last) n
CROSS JOIN unnest(CAST(:situations AS integer[])) situation;

-- name: subscriptions
INSERT INTO prepaid.subscriptions (subscription_ref, customer_id, plan_id, started_on, anchor_date,
                                   auto_renew, quantity)
SELECT format('F%s-%s', situation, n), c.customer_id, l.plan_id, starts.on_date, starts.on_date, true,
       CASE situation WHEN 2 THEN 3 ELSE 1 END
FROM generate_series(CAST(:first AS integer), :last) n
CROSS JOIN unnest(CAST(:situations AS integer[])) situation
JOIN prepaid.customers c ON c.customer_ref = format('F%s-%s', situation, n)
JOIN prepaid.plans l ON l.plan_code = CASE situation WHEN 1 THEN 'free' ELSE 'basic' END
CROSS JOIN LATERAL (SELECT CASE situation WHEN 4 THEN CAST(:due AS date)
    WHEN 5 THEN CAST(:due AS date) - 10 ELSE (CAST(:due AS date) - interval '1 month')::date END
    AS on_date) starts
ORDER BY n, situation;

-- name: addons
INSERT INTO prepaid.subscription_addons (subscription_id, addon_id, quantity)
SELECT s.subscription_id, a.addon_id, 1 FROM prepaid.subscriptions s, prepaid.addons a
WHERE s.subscription_ref LIKE 'F2-%' AND NOT EXISTS (
    SELECT FROM prepaid.subscription_addons sold WHERE sold.subscription_id = s.subscription_id);

-- name: discounts
INSERT INTO prepaid.discounts (subscription_id, discount_code, name, percent)
SELECT s.subscription_id, 'ten-' || s.subscription_ref, 'Ten percent', 10
FROM prepaid.subscriptions s
WHERE s.subscription_ref LIKE 'F2-%' AND NOT EXISTS (
    SELECT FROM prepaid.discounts granted WHERE granted.subscription_id = s.subscription_id);

-- name: terms
INSERT INTO prepaid.service_plans (
    subscription_id, customer_id, plan_id, origin, kind, status, start_date, end_date, planned_start,
    anchor_date, term_months, term_days, currency, price, addons, net_amount, recurring_amount,
    activated_on)
SELECT s.subscription_id, s.customer_id, s.plan_id, 'imported', 'new', 'Active', s.started_on,
       prepaid.term_end(s.started_on, s.started_on, 1, 0), s.started_on, s.started_on, 1, 0, 'USD',
       10, '[]', 10, 10, s.started_on
FROM prepaid.subscriptions s
WHERE s.subscription_ref NOT LIKE 'F4-%' AND NOT EXISTS (
    SELECT FROM prepaid.service_plans p WHERE p.subscription_id = s.subscription_id)
ORDER BY s.subscription_id;

-- name: to_change
SELECT s.subscription_id FROM prepaid.subscriptions s
WHERE s.subscription_ref LIKE 'F5-%' AND NOT EXISTS (
    SELECT FROM prepaid.service_plans p
    WHERE p.subscription_id = s.subscription_id AND p.kind = 'change')
ORDER BY s.subscription_id;

-- name: change
SELECT prepaid.change_plan(subscription, 'better', NULL, NULL, :due, 'asked for')
FROM unnest(CAST(:subscriptions AS bigint[])) subscription;

-- name: pay
-- What is still to be paid, of the first plans that wait for it; partial payments in situation 2.
INSERT INTO prepaid.transactions
    (provider, provider_ref, invoice_number, amount, currency, status, occurred_at)
SELECT 'bank', format('%s-%s', i.invoice_number, part), i.invoice_number,
       CASE WHEN s.subscription_ref NOT LIKE 'F2-%' THEN i.payable
            WHEN part = 1 THEN 4 ELSE i.payable - 4 END,
       i.currency, 'Success', '2026-11-02T10:00:00Z'
FROM (SELECT * FROM prepaid.invoices o WHERE o.status = 'Open' AND o.payable > 0
      AND NOT EXISTS (SELECT FROM prepaid.transactions t WHERE t.invoice_number = o.invoice_number)
      ORDER BY o.invoice_id LIMIT :limit) i
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.subscriptions s ON s.subscription_id = p.subscription_id
CROSS JOIN generate_series(1, CASE WHEN s.subscription_ref LIKE 'F2-%' THEN 2 ELSE 1 END) part;

-- name: undecided
-- The tasks of one kind that nobody has decided and that can be approved, oldest first.
SELECT task_id FROM prepaid.tasks k
WHERE kind = :kind AND status = 'Open' AND decision IS NULL
  AND NOT EXISTS (SELECT FROM prepaid.payment_verifications v
                  WHERE v.task_id = k.task_id AND v.what_to_do IS NOT NULL)
ORDER BY task_id LIMIT :limit;

-- name: agreeing
SELECT task_id FROM prepaid.payment_verifications
WHERE status = 'Open' AND agrees ORDER BY task_id LIMIT :limit;

-- name: time_passes
-- Until every lease is over.
WITH batches AS (
    UPDATE prepaid.batches SET leased_until = clock_timestamp() WHERE finished_at IS NULL)
UPDATE prepaid.emails SET leased_until = NULL, next_attempt_at = clock_timestamp()
WHERE status IN ('pending', 'sending');

-- name: became
-- One row per plan of the pipeline: its situation, and everything that was done about it except ids,
-- numbers and clock times. Two plans of one situation must be equal, but for the note that nobody knew
-- whether a mail had arrived.
SELECT substr(s.subscription_ref, 2, 1) AS situation, p.service_plan_id,
       jsonb_build_object(
    'plan', jsonb_build_array(p.kind, p.status, p.start_date, p.end_date, p.net_amount,
                              p.recurring_amount, p.activated_on),
    'charges', (SELECT jsonb_agg(jsonb_build_array(line_number, net, tax) ORDER BY line_number)
                FROM prepaid.charges WHERE service_plan_id = p.service_plan_id),
    'invoices', (SELECT jsonb_agg(jsonb_build_array(status, net, tax, credit, payable, paid_on,
                        (SELECT count(*) FROM prepaid.invoice_lines l
                         WHERE l.invoice_id = i.invoice_id)) ORDER BY invoice_id)
                 FROM prepaid.invoices i WHERE service_plan_id = p.service_plan_id),
    'records', (SELECT jsonb_agg(jsonb_build_array(t.amount, t.outcome) ORDER BY t.amount)
                FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_number)
                WHERE i.service_plan_id = p.service_plan_id),
    'credit', (SELECT jsonb_agg(jsonb_build_array(n.total, n.refund))
               FROM prepaid.credit_notes n WHERE n.service_plan_id = p.previous_plan_id),
    'tasks', (SELECT jsonb_agg(jsonb_build_array(k.kind, k.status, k.decision,
                        (SELECT count(*) FROM prepaid.sign_offs o WHERE o.task_id = k.task_id))
                        ORDER BY k.kind)
              FROM prepaid.tasks k WHERE k.service_plan_id = p.service_plan_id),
    'mails', (SELECT jsonb_agg(jsonb_build_array(template, occasion, status) ORDER BY template)
              FROM prepaid.emails WHERE service_plan_id = p.service_plan_id),
    'holds', (SELECT jsonb_agg(reason_code) FROM prepaid.holds h
              WHERE h.service_plan_id = p.service_plan_id),
    'waits', EXISTS (SELECT FROM prepaid.unsettled_plans u
                     WHERE u.service_plan_id = p.service_plan_id),
    'audit', (SELECT jsonb_agg(entry ORDER BY entry)
              FROM (SELECT concat_ws(' ', event, before, '->', after, actor) AS entry
                    FROM prepaid.audit_log WHERE service_plan_id = p.service_plan_id
                      AND event <> 'email_attempt_unknown') e)) AS became
FROM prepaid.service_plans p JOIN prepaid.subscriptions s USING (subscription_id)
WHERE p.origin = 'pipeline' AND p.service_plan_id > :after
ORDER BY p.service_plan_id;
