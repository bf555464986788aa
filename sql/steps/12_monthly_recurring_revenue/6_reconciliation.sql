-- Step 12: from what was billed to the invoices, and from those to the cash, with a line for everything
-- that lies between. docs/revenue.md says what each line is. Uses the temporary table money_returned.

-- name: money_received
-- What Success records say has come, each payment's money once. A payment that several of them report
-- has brought the largest of their amounts, and again what a later one says after a return. What comes
-- after :as_of is there as well, in a later month: money can be dated after the term that it pays began.
-- What a person assigned counts for the invoice from the month in which it was assigned.
CREATE TEMPORARY TABLE money_received ON COMMIT DROP AS
WITH succeeded AS (
    SELECT transaction_id, provider, provider_ref, amount, currency, invoice_id, invoice_number, assigned_by,
           prepaid.counted_at(occurred_at, received_at, time_doubted) AS moment,
           prepaid.place_in_time(status, occurred_at, time_doubted) AS place,
           outcome IS NOT DISTINCT FROM 'matched' AS paid,
           coalesce(provider <> '' AND provider_ref <> '', false) AS is_named
    FROM prepaid.transactions
    WHERE status = 'Success' AND prepaid.amount_moved(status, amount) > 0
      AND currency IN (SELECT currency FROM prepaid.currencies)
),
-- Most payments have one Success, which paid.
in_doubt AS (
    SELECT DISTINCT provider, provider_ref FROM succeeded WHERE is_named AND NOT paid
),
told_apart AS (
    SELECT s.*, u.provider IS NOT NULL AS in_doubt
    FROM succeeded s
    LEFT JOIN in_doubt u ON u.provider = s.provider AND u.provider_ref = s.provider_ref
),
counted AS (
    SELECT transaction_id, moment, currency, amount, invoice_id, invoice_number, assigned_by
    FROM told_apart WHERE paid AND NOT in_doubt
    UNION ALL
    SELECT t.transaction_id, t.moment, t.currency, t.amount, i.invoice_id, t.invoice_number, t.assigned_by
    FROM told_apart t
    LEFT JOIN prepaid.invoices i
        ON i.invoice_id = coalesce(t.invoice_id, (
               SELECT n.invoice_id FROM prepaid.invoices n WHERE n.invoice_number = t.invoice_number))
        AND i.currency = t.currency
    WHERE NOT t.is_named AND NOT t.paid
    UNION ALL
    SELECT transaction_id, moment, currency,
           amount - coalesce(max(amount) OVER earlier, 0),
           revenue.invoice_paid_by(provider, provider_ref, currency), invoice_number, assigned_by
    FROM (
        SELECT t.*, returned.times
        FROM told_apart t
        CROSS JOIN LATERAL (
            SELECT sum(CASE r.status WHEN 'ChargebackReversed' THEN -1 ELSE 1 END) AS times
            FROM prepaid.transactions r
            WHERE hashtextextended(r.provider_ref, 0) = hashtextextended(t.provider_ref, 0)
              AND r.provider = t.provider AND r.provider_ref = t.provider_ref
              AND r.status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed')
              AND r.credit_note_id IS NULL
              AND prepaid.place_in_time(r.status, r.occurred_at, r.time_doubted) < t.place) returned
        WHERE t.in_doubt
    ) t
    WINDOW earlier AS (PARTITION BY provider, provider_ref, currency, times
                       ORDER BY place, transaction_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT greatest(date_trunc('month', e.day::timestamp),
                CASE WHEN e.day > CAST(:as_of AS date)
                     THEN date_trunc('month', CAST(:as_of AS timestamp)) + interval '1 month' END
       )::date AS month, c.currency, e.invoice_id, e.amount
FROM counted c
CROSS JOIN LATERAL (SELECT prepaid.business_date(c.moment) AS on_day) came
LEFT JOIN LATERAL (
    SELECT coalesce(a.as_of, prepaid.business_date(a.at)) AS on_day,
           (SELECT n.invoice_id FROM prepaid.invoices n
            WHERE n.invoice_number = c.invoice_number AND n.currency = c.currency) AS named
    FROM prepaid.invoices i
    JOIN prepaid.audit_log a ON a.service_plan_id = i.service_plan_id
    WHERE c.assigned_by IS NOT NULL AND i.invoice_id = c.invoice_id
      AND a.event = 'transaction_assigned' AND a.entity_id = c.transaction_id
    ORDER BY a.audit_id DESC LIMIT 1) assigned ON true
CROSS JOIN LATERAL (
    SELECT greatest(came.on_day, assigned.on_day) AS day, c.invoice_id, c.amount
    UNION ALL
    SELECT e.day, assigned.named, e.amount
    FROM (VALUES (came.on_day, c.amount), (assigned.on_day, -c.amount)) e (day, amount)
    WHERE assigned.on_day > came.on_day
) e
WHERE c.amount > 0;

-- name: stage_reconciliation
INSERT INTO revenue.reconciliation_staging (run_id, month, currency, line, amount)
WITH last_voids AS (
    SELECT service_plan_id, max(invoice_id) AS invoice_id
    FROM prepaid.invoices v
    WHERE status = 'Void' AND NOT EXISTS (
        SELECT FROM prepaid.invoices n
        WHERE n.service_plan_id = v.service_plan_id AND n.status <> 'Void')
    GROUP BY service_plan_id
),
-- began_in: the month in which the term that the invoice is for became active.
issued AS (
    SELECT i.invoice_id, i.currency, i.net, i.tax, i.total, i.credit, i.payable, i.status,
           date_trunc('month', i.issued_on::timestamp)::date AS month,
           CASE WHEN i.status <> 'Void' OR v.invoice_id IS NOT NULL
                THEN date_trunc('month', p.activated_on::timestamp)::date END AS began_in
    FROM prepaid.invoices i
    LEFT JOIN last_voids v ON v.invoice_id = i.invoice_id
    LEFT JOIN pg_temp.terms_read p ON p.service_plan_id = i.service_plan_id
    WHERE i.issued_on <= CAST(:as_of AS date)
),
-- A month in which an invoice is issued and paid, and nothing comes back, leaves nothing to explain.
unsettled AS (
    SELECT invoice_id, month, sum(payable) - sum(received) + sum(returned) AS owed,
           sum(returned) AS returned, sum(received) AS received
    FROM (
        SELECT invoice_id, month, payable, 0 AS received, 0 AS returned FROM issued
        UNION ALL
        SELECT invoice_id, month, 0, amount, 0 FROM money_received WHERE invoice_id IS NOT NULL
        UNION ALL
        SELECT invoice_id, month, 0, 0, amount FROM money_returned
        WHERE invoice_id IS NOT NULL AND NOT by_credit_note
    ) e
    GROUP BY invoice_id, month
    HAVING sum(payable) - sum(received) + sum(returned) <> 0 OR sum(returned) <> 0
),
courses AS (
    SELECT i.currency, e.invoice_id, e.month, i.began_in <= e.month AS has_begun, i.status,
           sum(e.owed) OVER w AS owed, sum(e.returned) OVER w AS returned,
           sum(e.received) OVER (PARTITION BY e.invoice_id) - sum(e.received) OVER w AS comes_later
    FROM (
        SELECT * FROM unsettled
        UNION ALL
        SELECT invoice_id, began_in, 0, 0, 0 FROM issued
        WHERE began_in IS NOT NULL AND invoice_id IN (SELECT invoice_id FROM unsettled)
    ) e
    JOIN issued i USING (invoice_id)
    WINDOW w AS (PARTITION BY e.invoice_id ORDER BY e.month)
),
-- How much of each invoice is open at the month's end, and why. A term that began is paid, by what the
-- database lets happen, unless the payment was taken back since: an open remainder of one whose invoice
-- is Paid has no name here, unless its money is dated later.
states AS (
    SELECT DISTINCT currency, invoice_id, month, taken_back, overpaid,
           CASE WHEN has_begun THEN 0 ELSE still_open END AS not_paid,
           CASE WHEN has_begun THEN least(still_open, greatest(comes_later, 0)) ELSE 0 END AS dated_later
    FROM courses
    CROSS JOIN LATERAL (SELECT greatest(-owed, 0) AS overpaid, greatest(owed, 0) AS due,
        CASE WHEN has_begun AND status <> 'Paid' THEN greatest(owed, 0)
             ELSE greatest(least(owed, returned), 0) END AS taken_back) s
    CROSS JOIN LATERAL (SELECT due - taken_back AS still_open) o
),
flows AS (
    SELECT currency, month,
           taken_back - lag(taken_back, 1, 0::numeric) OVER w AS taken_back,
           overpaid - lag(overpaid, 1, 0::numeric) OVER w AS overpaid,
           not_paid - lag(not_paid, 1, 0::numeric) OVER w AS not_paid,
           dated_later - lag(dated_later, 1, 0::numeric) OVER w AS dated_later
    FROM states
    WINDOW w AS (PARTITION BY invoice_id ORDER BY month)
),
entries AS (
    SELECT month, currency, line, amount
    FROM issued CROSS JOIN LATERAL (VALUES
        ('invoices_net', net), ('tax', tax), ('paid_with_credit', -credit), ('waiting', net)
    ) l (line, amount)
    UNION ALL
    SELECT began_in, currency, 'waiting', -net FROM issued WHERE began_in IS NOT NULL
    UNION ALL
    SELECT date_trunc('month', activated_on::timestamp)::date, currency, 'imported', -sum(net_amount)
    FROM pg_temp.terms_read
    WHERE origin = 'imported' AND activated_on >= CAST(:first_month AS date)
    GROUP BY 1, 2
    UNION ALL
    SELECT month, currency, 'billed', billed FROM revenue.deferred_revenue_staging
    WHERE run_id = :run_id
    UNION ALL
    SELECT month, currency, l.line, l.amount
    FROM flows CROSS JOIN LATERAL (VALUES
        ('not_paid', -not_paid), ('taken_back', -taken_back), ('overpaid', overpaid),
        ('dated_later', -dated_later)) l (line, amount)
    UNION ALL
    SELECT month, currency, l.line, l.amount
    FROM (SELECT month, currency, sum(amount) AS amount,
                 sum(amount) FILTER (WHERE invoice_id IS NULL) AS unassigned
          FROM money_received GROUP BY month, currency) r
    CROSS JOIN LATERAL (VALUES ('cash_received', amount), ('unassigned', unassigned)) l (line, amount)
    UNION ALL
    SELECT month, currency, 'cash_returned', -amount FROM money_returned
    UNION ALL
    SELECT month, currency, CASE WHEN by_credit_note THEN 'credit_notes_paid' ELSE 'unassigned' END,
           -amount
    FROM money_returned WHERE by_credit_note OR invoice_id IS NULL
),
named AS (
    SELECT month, currency, line, sum(amount) AS amount
    FROM entries
    WHERE month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
    GROUP BY month, currency, line
),
-- One row per month and currency: the sums, and what no line explains.
summed AS (
    SELECT month, currency,
           sum(amount) FILTER (WHERE line = 'invoices_net') AS net,
           sum(amount) FILTER (WHERE line IN ('invoices_net', 'tax')) AS total,
           sum(amount) FILTER (WHERE line IN ('billed', 'imported', 'waiting')) AS documents,
           sum(amount) FILTER (WHERE line IN ('cash_received', 'cash_returned')) AS cash,
           sum(amount) FILTER (WHERE line IN (
               'invoices_net', 'tax', 'paid_with_credit', 'not_paid', 'taken_back', 'overpaid',
               'unassigned', 'dated_later', 'credit_notes_paid')) AS money
    FROM named GROUP BY month, currency
)
SELECT :run_id, s.month, s.currency, l.line, trim_scale(coalesce(l.amount, n.amount, 0))
FROM summed s
CROSS JOIN LATERAL (VALUES
    ('billed', NULL::numeric), ('imported', NULL), ('waiting', NULL),
    ('invoices_remainder', coalesce(s.net, 0) - coalesce(s.documents, 0)),
    ('invoices_net', NULL), ('tax', NULL), ('invoices_total', coalesce(s.total, 0)),
    ('paid_with_credit', NULL), ('not_paid', NULL), ('taken_back', NULL), ('overpaid', NULL),
    ('unassigned', NULL), ('dated_later', NULL), ('credit_notes_paid', NULL),
    ('cash_remainder', coalesce(s.cash, 0) - coalesce(s.money, 0)),
    ('cash', coalesce(s.cash, 0)), ('cash_received', NULL), ('cash_returned', NULL)
) l (line, amount)
LEFT JOIN named n ON n.month = s.month AND n.currency = s.currency AND n.line = l.line;
