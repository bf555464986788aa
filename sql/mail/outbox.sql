-- The outbox: mails are claimed in batches, written once, sent, and their outcomes noted. Between
-- the statements no transaction is open: a slow mail server must not hold locks.

-- name: recover
-- A mail that is still 'sending' when its lease is over: its sender died between the mark and the
-- note of the outcome, and may have delivered it.
WITH lost AS (
    SELECT email_id FROM prepaid.emails
    WHERE status = 'sending' AND (leased_until IS NULL OR leased_until < clock_timestamp())
    ORDER BY email_id LIMIT :batch_size
    FOR UPDATE SKIP LOCKED
)
UPDATE prepaid.emails e
SET unknown_attempts = e.unknown_attempts + 1, leased_until = NULL,
    status = CASE e.unknown_attempts WHEN 0 THEN 'pending' ELSE 'unknown' END,
    next_attempt_at = clock_timestamp(),
    last_error = 'the sender ended before it had noted how the attempt went: it may have arrived'
FROM lost WHERE e.email_id = lost.email_id
RETURNING e.email_id, e.status;

-- name: claim
-- leased_until is also the claim's token: whoever finds another value in it has lost the mail.
WITH due AS (
    SELECT email_id FROM prepaid.emails
    WHERE status = 'pending' AND next_attempt_at <= clock_timestamp()
      AND (leased_until IS NULL OR leased_until < clock_timestamp())
    ORDER BY next_attempt_at, email_id
    LIMIT :batch_size
    FOR UPDATE SKIP LOCKED
)
UPDATE prepaid.emails e
SET leased_until = now() + make_interval(secs => :lease_seconds)
FROM due WHERE e.email_id = due.email_id
RETURNING e.email_id, e.recipient, e.message_id, e.content, e.leased_until, e.unknown_attempts;

-- name: drop_outdated
-- A reminder goes out only as long as the invoice is one to be reminded of: not when it was paid or
-- voided after the reminder was ordered, and not when a payment has been announced.
UPDATE prepaid.emails e
SET status = 'dropped', leased_until = NULL, last_error = format(
    'not sent: invoice %s is %s', i.invoice_number, CASE i.status
        WHEN 'Open' THEN 'open, and its payment is being looked into' ELSE lower(i.status) END)
FROM prepaid.invoices i
WHERE e.email_id = ANY (CAST(:email_ids AS bigint[])) AND e.template = 'payment_reminder'
  AND i.invoice_id = e.invoice_id
  AND (NOT EXISTS (SELECT FROM prepaid.unpaid_invoices u
                   WHERE u.service_plan_id = e.service_plan_id AND u.invoice_id = e.invoice_id OFFSET 0)
       OR EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_number = i.invoice_number AND t.outcome = 'waiting'
                    AND t.decided_at > e.created_at OFFSET 0))
RETURNING e.email_id;

-- name: drop_decided
-- A reminder of overdue tasks when nothing of what it lists is open any more.
UPDATE prepaid.emails e
SET status = 'dropped', leased_until = NULL, last_error = 'not sent: the tasks are not open any more'
WHERE e.email_id = ANY (CAST(:email_ids AS bigint[])) AND e.template = 'overdue_tasks'
  AND NOT EXISTS (SELECT FROM prepaid.task_reminders r JOIN prepaid.tasks k USING (task_id)
                  WHERE r.email_id = e.email_id AND k.status = 'Open')
RETURNING e.email_id;

-- name: details
-- What the templates may show: the plan's own snapshot, the invoice that the mail is about (else the
-- live one) and the record that paid it. Amounts are texts inside JSON: a JSON number would become a float.
SELECT e.email_id, e.template, e.occasion, e.recipient, e.created_at, e.corrections,
       coalesce(p.customer_name, c.name) AS customer_name, c.customer_ref, c.country, coalesce(p.plan_name, b.name) AS plan_name,
       p.quantity, p.kind, p.start_date, p.end_date,
       coalesce(p.addons, '[]') AS addons, coalesce(d.names, '[]') AS discounts,
       i.invoice_number, i.status AS invoice_status, i.issued_on, i.paid_on, p.currency, u.exponent, i.net, i.tax, i.total,
       i.credit, i.payable, n.credit_note_number, n.total AS credited, n.refund,
       paid.credit_note_number AS applied_note, due.due_on,
       prepaid.last_day_to_pay(due.due_on, CAST(:payment_days AS integer), running.end_date) AS pay_by,
       i.tax_note, t.provider, t.provider_ref, coalesce(l.lines, '[]') AS lines, k.overdue
FROM prepaid.emails e
LEFT JOIN prepaid.service_plans p USING (service_plan_id)
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.plans b ON b.plan_id = p.plan_id
LEFT JOIN prepaid.credit_notes n ON n.service_plan_id = p.service_plan_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id
    AND CASE WHEN e.invoice_id IS NULL THEN i.status <> 'Void' ELSE i.invoice_id = e.invoice_id END
LEFT JOIN prepaid.service_plans running
    ON running.service_plan_id = p.previous_plan_id AND p.kind = 'change'
CROSS JOIN LATERAL (SELECT prepaid.due_on(i.issued_on, p.planned_start) AS due_on) due
LEFT JOIN prepaid.credit_notes paid ON paid.applied_to_invoice_id = i.invoice_id
LEFT JOIN prepaid.currencies u ON u.currency = p.currency
LEFT JOIN prepaid.transactions t
    ON t.transaction_id = i.transaction_id AND t.invoice_id = i.invoice_id
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('description', n.description, 'net', n.net::text,
               'tax_rate', n.tax_rate::text, 'tax', n.tax::text, 'quantity', n.quantity,
               'unit_price', n.unit_price::text, 'list_amount', n.list_amount::text,
               'discount', n.discount::text, 'includes_tax', n.includes_tax)
               ORDER BY n.line_number) AS lines
    FROM prepaid.invoice_lines n WHERE n.invoice_id = i.invoice_id
) l ON true
LEFT JOIN LATERAL (
    SELECT jsonb_agg(g ->> 'name' ORDER BY place) AS names
    FROM jsonb_array_elements(p.discounts) WITH ORDINALITY granted (g, place)
) d ON true
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('task_id', k.task_id, 'kind', replace(k.kind, '_', ' '),
               'due_on', k.due_on, 'assigned_to', k.assigned_to, 'open', k.status = 'Open', 'what', concat_ws(', ',
                   about.invoice_number, owner.customer_ref, about.payable || ' ' || about.currency))
               ORDER BY k.due_on, k.task_id) AS overdue
    FROM prepaid.task_reminders r
    JOIN prepaid.tasks k USING (task_id)
    LEFT JOIN prepaid.invoices about ON about.invoice_id = k.invoice_id
    LEFT JOIN prepaid.service_plans plan ON plan.service_plan_id = k.service_plan_id
    LEFT JOIN prepaid.customers owner ON owner.customer_id = plan.customer_id
    WHERE r.email_id = e.email_id
) k ON e.service_plan_id IS NULL
WHERE e.email_id = ANY (CAST(:email_ids AS bigint[]));

-- name: store
-- :contents is all of them in a row; each begins so many bytes after the first.
UPDATE prepaid.emails e
SET message_id = w.message_id,
    content = substring(CAST(:contents AS bytea) FROM w.start + 1 FOR w.length)
FROM unnest(CAST(:email_ids AS bigint[]), CAST(:message_ids AS text[]), CAST(:starts AS integer[]),
            CAST(:lengths AS integer[])) w (email_id, message_id, start, length)
WHERE e.email_id = w.email_id AND e.leased_until = :lease AND e.content IS NULL
RETURNING e.email_id;

-- name: start
-- The mark that an attempt has begun, committed before anything is handed over. (Set a second time
-- when the answer to the first commit was lost.)
UPDATE prepaid.emails
SET attempts = attempts + CASE status WHEN 'pending' THEN 1 ELSE 0 END, status = 'sending'
WHERE email_id = ANY (CAST(:email_ids AS bigint[])) AND leased_until = :lease
RETURNING email_id;

-- name: note
-- Outcomes: sent; failed (refused permanently); deferred (put off, or broken off before the end of the
-- mail); unreachable (nothing could be handed over, which says nothing about the mail); unknown
-- (broken off after it). What is tried again waits 1, 2, 4 … minutes, an hour at most; what the server
-- puts off is tried a last time when retry_hours are over. Who may have got it is for a person to
-- find out, however a later attempt ended.
WITH judged AS (
    SELECT e.email_id, o.outcome, o.error, p.since, p.since + p.patience AS give_up_at,
           e.unknown_attempts + CASE o.outcome WHEN 'unknown' THEN 1 ELSE 0 END AS unknown_attempts,
           a.attempts, clock_timestamp()
               + make_interval(mins => least(60, power(2, least(a.attempts - 1, 6))::integer)) AS again_at
    FROM unnest(CAST(:email_ids AS bigint[]), CAST(:outcomes AS text[]),
                CAST(:errors AS text[])) o (email_id, outcome, error)
    JOIN prepaid.emails e USING (email_id)
    CROSS JOIN LATERAL (SELECT
        CASE o.outcome WHEN 'deferred' THEN coalesce(e.deferred_since, clock_timestamp())
             ELSE e.deferred_since END AS since,
        make_interval(hours => :retry_hours) AS patience) p
    -- Not begun because nothing could be handed over counts as well: the waits are to grow.
    CROSS JOIN LATERAL (SELECT
        e.attempts + CASE e.status WHEN 'pending' THEN 1 ELSE 0 END AS attempts) a
), ended AS (
    SELECT j.*, CASE
        WHEN j.outcome = 'sent' THEN 'sent'
        WHEN j.unknown_attempts > 1 THEN 'unknown'
        WHEN j.outcome = 'failed' OR j.outcome = 'deferred' AND j.give_up_at <= clock_timestamp()
            THEN CASE j.unknown_attempts WHEN 0 THEN 'failed' ELSE 'unknown' END
        ELSE 'pending' END AS status
    FROM judged j
)
UPDATE prepaid.emails e
SET status = n.status, leased_until = NULL, attempts = n.attempts, unknown_attempts = n.unknown_attempts,
    deferred_since = n.since,
    last_error = CASE WHEN n.outcome = 'deferred' AND n.status <> 'pending'
        THEN format('given up after %s hours: %s', CAST(:retry_hours AS integer), n.error)
        ELSE n.error END,
    sent_at = CASE n.status WHEN 'sent' THEN clock_timestamp() END,
    next_attempt_at = CASE n.status WHEN 'pending'
        THEN CASE n.outcome WHEN 'deferred' THEN least(n.again_at, n.give_up_at) ELSE n.again_at END
        ELSE e.next_attempt_at END
FROM ended n
WHERE e.email_id = n.email_id AND e.leased_until = :lease
RETURNING e.email_id, e.status;

-- name: give_back
-- Not tried after all: no time was left under the lease, or the sender is stopping.
UPDATE prepaid.emails
SET status = 'pending', leased_until = NULL,
    attempts = attempts - CASE status WHEN 'sending' THEN 1 ELSE 0 END
WHERE email_id = ANY (CAST(:email_ids AS bigint[])) AND leased_until = :lease;
