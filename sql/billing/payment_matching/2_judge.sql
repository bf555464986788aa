-- What each connected record says by itself and beside the other events of its payment. Straight through.

-- name: connected_statistics
ANALYZE connected;

-- name: lock_plans
-- Plans first, as the steps do: nobody pays, cancels or activates one of them while it is judged.
SELECT service_plan_id FROM prepaid.service_plans
WHERE service_plan_id IN (SELECT service_plan_id FROM connected)
ORDER BY service_plan_id FOR NO KEY UPDATE;

-- name: taken_back
-- charged: the chargeback that a reversal has to give back, which is no more than was paid.
CREATE TEMP TABLE taken_back (
    transaction_id bigint PRIMARY KEY, amount numeric, currency text, paid_amount numeric,
    paid_currency text, is_other_currency boolean, speaks boolean, charged numeric
) ON COMMIT DROP;

-- name: read_taken_back
-- As the figures read the same records.
INSERT INTO taken_back
SELECT m.transaction_id, m.amount, m.currency, m.paid_amount, m.paid_currency, m.is_other_currency,
       m.speaks, least(m.paid_amount, max(m.amount)
           FILTER (WHERE t.status = 'Chargeback' AND NOT m.is_other_currency)
           OVER (PARTITION BY c.payment ORDER BY c.moment, t.status = 'ChargebackReversed'))
FROM prepaid.money_taken_back(ARRAY(SELECT transaction_id FROM connected WHERE takes_back)) m
JOIN connected c USING (transaction_id)
CROSS JOIN LATERAL (SELECT status FROM prepaid.transactions
                    WHERE transaction_id = c.transaction_id OFFSET 0) t;

-- name: judged
-- fits: full (pays the invoice alone), part, or null with the reason in misfit. was_…: as judged before.
CREATE TEMP TABLE judged (
    transaction_id bigint PRIMARY KEY, payment text, at timestamptz, status text, amount numeric,
    customer_ref text, invoice_id bigint, invoice_number text, payable numeric, paid boolean,
    provider_ref text, assigned boolean, fits text, misfit text, content text,
    outcome text, reason text, credit_note_id bigint, doubted boolean,
    was_outcome text, was_invoice_id bigint
) ON COMMIT DROP;

-- name: judge_events
-- What each record says beside the other events of its payment. An event is undone by a later one: a
-- Failed or Refunded by a later Success, a Chargeback by a later Success or ChargebackReversed. At the
-- same moment money taken back counts as the later event, and the reversal as later than that. Money
-- that is refunded or charged back before it ever came has a wrong time, and is taken back.
WITH records AS (
    SELECT t.transaction_id, t.provider_ref, t.invoice_number, t.amount, t.currency, t.status,
           t.customer_ref, t.as_delivered, t.assigned_by, t.outcome, t.outcome_reason, t.invoice_id,
           t.occurred_at, c.payment, c.own, c.invoice_id AS asked_invoice_id, c.moment, c.doubted,
           prepaid.record_status(t.status) AS word,
           b.amount AS moved, b.currency AS moved_currency, b.paid_amount, b.paid_currency, b.speaks,
           b.is_other_currency, coalesce(b.amount >= b.charged, true) AS gives_all_back,
           NOT c.own AND row_number() OVER (
               PARTITION BY c.payment, t.status, t.occurred_at, t.invoice_number, t.amount,
                            t.currency, t.customer_ref, t.as_delivered
               ORDER BY t.outcome IS NULL, t.transaction_id) > 1 AS twin,
           -- Finance has dealt with it elsewhere, such as paid it back: it pays nothing any more,
           -- unless a person assigns it.
           t.outcome IS NOT DISTINCT FROM 'parked' AND t.assigned_by IS NULL AND EXISTS (
               SELECT FROM prepaid.tasks k WHERE k.transaction_id = t.transaction_id
                 AND k.kind = 'payment_review' AND k.status = 'Done' OFFSET 0) AS closed,
           -- An account's references are not unique: what it has announced is booked when the same is.
           CASE WHEN t.entry_digest IS NOT NULL AND t.status <> 'Success' THEN EXISTS (
               SELECT FROM (
                   SELECT b.* FROM prepaid.transactions b
                   WHERE hashtextextended(b.provider_ref, 0)
                         = hashtextextended(coalesce(t.bank_ref, t.provider_ref), 0)
                     AND b.provider_ref = coalesce(t.bank_ref, t.provider_ref)
                   UNION ALL
                   SELECT b.* FROM prepaid.transactions b
                   WHERE hashtextextended(b.bank_ref, 0)
                         = hashtextextended(coalesce(t.bank_ref, t.provider_ref), 0)
                     AND b.bank_ref = coalesce(t.bank_ref, t.provider_ref)) b
               WHERE b.provider = t.provider AND b.status = 'Success' AND b.occurred_at >= t.occurred_at
                 AND (b.invoice_number, b.amount, b.currency) IS NOT DISTINCT FROM
                     (t.invoice_number, t.amount, t.currency) OFFSET 0)
           ELSE false END AS is_booked
    FROM connected c
    CROSS JOIN LATERAL (SELECT * FROM prepaid.transactions
                        WHERE transaction_id = c.transaction_id OFFSET 0) t
    LEFT JOIN taken_back b ON b.transaction_id = c.transaction_id
), timed AS (
    SELECT *,
           max(moment) FILTER (WHERE word = 'Success') OVER events AS last_success,
           min(moment) FILTER (WHERE word = 'Success' AND moment > '-infinity') OVER events AS first_success,
           max(moment) FILTER (WHERE word = 'ChargebackReversed' AND gives_all_back
                                 AND NOT is_other_currency) OVER events AS last_reversal,
           min(moment) FILTER (WHERE word = 'Chargeback') OVER events AS first_chargeback,
           max(moment) FILTER (WHERE word NOT IN ('Pending', 'Unknown', 'Unfinished')) OVER events
               AS last_decisive,
           max(asked_invoice_id) FILTER (WHERE word = 'Success') OVER events AS paid_invoice_id
    FROM records
    WINDOW events AS (PARTITION BY payment)
), asked_back AS (
    -- Refunds that one of our credit notes asked for, in one piece or in several, as the payment was.
    SELECT t.transaction_id, n.credit_note_id,
           sum(t.moved) OVER (PARTITION BY n.credit_note_id ORDER BY t.moment, t.transaction_id)
               <= n.refund AS asked
    FROM timed t
    CROSS JOIN LATERAL (
        SELECT n.credit_note_id, n.refund FROM prepaid.credit_notes n
        WHERE n.refund >= t.moved AND t.moved > 0 AND n.currency = t.moved_currency
          AND (n.credit_note_number = t.invoice_number
               OR n.invoice_id = t.paid_invoice_id
                  AND (t.asked_invoice_id = n.invoice_id OR t.invoice_number IS NULL))
        ORDER BY n.credit_note_id LIMIT 1) n
    WHERE t.word = 'Refunded' AND NOT t.twin
), weighed AS (
    SELECT t.*, a.credit_note_id,
           NOT t.twin AND a.credit_note_id IS NULL AND CASE t.word
               WHEN 'Failed' THEN coalesce(t.last_success <= t.moment, true)
               WHEN 'Refunded' THEN coalesce(t.last_success <= t.moment OR t.first_success > t.moment, true)
               WHEN 'Chargeback' THEN coalesce(t.last_success <= t.moment OR t.first_success > t.moment, true)
                                  AND coalesce(t.last_reversal < t.moment, true)
               ELSE false END AS is_standing
    FROM timed t
    LEFT JOIN asked_back a ON a.transaction_id = t.transaction_id AND a.asked
), added AS (
    -- What came back in another currency than the payment's is a question, and moves none of it.
    SELECT *, is_standing AND NOT is_other_currency AS takes_back,
           sum(moved) FILTER (WHERE is_standing AND NOT is_other_currency AND speaks
                                AND word IN ('Refunded', 'Chargeback')) OVER events AS moved_in_all,
           sum(moved) FILTER (WHERE is_standing AND NOT is_other_currency AND speaks
                                AND word = 'Refunded') OVER events < paid_amount AS partly_refunded
    FROM weighed
    WINDOW events AS (PARTITION BY payment)
), standing AS (
    -- A part that is refunded does not take the payment back; finance is asked about it.
    SELECT *, max(CASE word WHEN 'Failed' THEN 1 WHEN 'Refunded' THEN 2 ELSE 3 END)
                  FILTER (WHERE takes_back AND NOT (word = 'Refunded' AND partly_refunded IS TRUE))
                  OVER (PARTITION BY payment) AS taken_back
    FROM added
)
INSERT INTO judged
SELECT s.transaction_id, s.payment, coalesce(s.occurred_at, '-infinity'), s.status, s.amount, s.customer_ref, i.invoice_id,
       i.invoice_number, i.payable, i.status = 'Paid', s.provider_ref, s.assigned_by IS NOT NULL,
       CASE WHEN s.word = 'Success' AND misfit.reason IS NULL AND NOT s.closed
            THEN CASE WHEN s.amount = i.payable THEN 'full' ELSE 'part' END END,
       misfit.reason,
       to_jsonb(ARRAY[s.invoice_number, s.amount::text, s.currency, s.customer_ref])::text,
       CASE
           WHEN s.twin THEN 'superseded'
           WHEN s.credit_note_id IS NOT NULL THEN 'matched'
           WHEN s.word = 'Unfinished' THEN 'superseded'
           WHEN s.word IN ('Pending', 'Unknown')
               THEN CASE WHEN s.last_decisive >= s.moment OR s.is_booked THEN 'superseded'
                         ELSE 'waiting' END
           WHEN s.word = 'Success' THEN CASE WHEN s.taken_back IS NOT NULL THEN 'superseded'
                                             WHEN s.closed THEN 'parked' END
           WHEN s.word = 'ChargebackReversed'
               THEN CASE WHEN s.first_chargeback <= s.moment AND s.last_success IS NOT NULL
                              AND s.gives_all_back AND NOT s.is_other_currency
                         THEN 'superseded' ELSE 'parked' END
           WHEN s.word = 'Failed' AND s.last_decisive > s.moment THEN 'superseded'
           WHEN s.is_standing THEN 'parked'
           ELSE 'superseded' END,
       CASE
           WHEN s.twin THEN 'the identical record was delivered before'
           WHEN s.credit_note_id IS NOT NULL THEN NULL
           WHEN s.word = 'Unfinished' THEN 'the customer has not completed the payment'
           WHEN s.word IN ('Pending', 'Unknown') AND (s.last_decisive >= s.moment OR s.is_booked)
               THEN 'a later record of the same payment decided it'
           WHEN s.word = 'Unknown' THEN format('status %s is not known', coalesce(left(s.status, 100), 'nothing'))
           WHEN s.word = 'Pending' THEN 'the payment has not cleared yet'
           WHEN s.word = 'Success' AND s.taken_back IS NOT NULL
               THEN format('a later record of the same payment says %s',
                           (ARRAY['Failed', 'Refunded', 'Chargeback'])[s.taken_back])
           WHEN s.word = 'Success' THEN CASE WHEN s.closed THEN s.outcome_reason END
           WHEN s.word = 'Failed' AND s.last_decisive > s.moment
               THEN 'a later record of the same payment decided it'
           WHEN s.is_other_currency AND (s.is_standing OR s.word = 'ChargebackReversed')
               THEN format('the record says %s in %s, the payment was in %s', s.word,
                           left(s.moved_currency, 20), left(s.paid_currency, 20))
           WHEN (s.doubted OR s.moment IN ('infinity', '-infinity')) AND (s.is_standing OR s.word = 'ChargebackReversed')
               THEN format('the record says %s, and its time (%s) is not believable', s.word,
                           prepaid.said_time(s.occurred_at, s.as_delivered))
           WHEN s.word = 'ChargebackReversed' AND s.first_chargeback <= s.moment
               AND s.last_success IS NOT NULL AND s.gives_all_back THEN 'the chargeback is reversed'
           WHEN s.word = 'ChargebackReversed' AND s.first_chargeback <= s.moment
               AND s.last_success IS NOT NULL
               THEN format('%s of the chargeback is reversed, not all of it', left(s.moved::text, 40))
           WHEN s.word = 'ChargebackReversed' AND s.last_success IS NULL
               THEN 'the record reverses a chargeback, but no Success of this payment was delivered'
           WHEN s.word = 'ChargebackReversed'
               THEN 'the record reverses a chargeback that was not delivered'
           WHEN s.takes_back AND s.word = 'Refunded' AND s.partly_refunded
               THEN format('refunded %s of %s', s.moved, s.paid_amount)
           WHEN s.takes_back AND s.word IN ('Refunded', 'Chargeback') AND s.moved_in_all > s.paid_amount
               THEN format('the record says %s; in all %s came back of a payment of %s', s.word,
                           s.moved_in_all, s.paid_amount)
           WHEN s.takes_back THEN format('the record says %s', s.word)
           ELSE 'a later record says that the payment stands' END,
       s.credit_note_id, s.doubted, s.outcome,
       CASE WHEN s.outcome IS NOT NULL THEN s.invoice_id END
FROM standing s
LEFT JOIN LATERAL (SELECT * FROM prepaid.invoices
                   WHERE invoice_id = s.asked_invoice_id OFFSET 0) i ON true
LEFT JOIN prepaid.customers c USING (customer_id)
CROSS JOIN (SELECT timezone AS name FROM prepaid.installation) zone
CROSS JOIN LATERAL (SELECT CASE
    WHEN s.invoice_number IS NULL AND i.invoice_id IS NULL THEN 'the record names no invoice'
    WHEN i.invoice_id IS NULL THEN format('there is no invoice %s', left(s.invoice_number, 100))
    WHEN i.status = 'Void' THEN format('invoice %s is void', i.invoice_number)
    WHEN s.currency IS DISTINCT FROM i.currency
        THEN format('paid in %s, invoiced in %s', coalesce(left(s.currency, 20), 'no currency'), i.currency)
    WHEN prepaid.amount_moved(s.status, s.amount) IS NULL OR s.amount <= 0 AND s.amount <> i.payable
         OR s.amount > i.payable AND s.assigned_by IS NULL
        THEN format('paid %s, invoiced %s', coalesce(left(s.amount::text, 40),
                    left(s.as_delivered ->> 'amount', 40), 'nothing'), i.payable)
    WHEN s.customer_ref <> c.customer_ref AND s.assigned_by IS NULL
        THEN format('the record names customer %s, the invoice %s', left(s.customer_ref, 100), c.customer_ref)
    -- A question about its time is answered by assigning it. What has paid goes on paying.
    WHEN s.assigned_by IS NOT NULL OR s.outcome IS NOT DISTINCT FROM 'matched' THEN NULL
    WHEN s.moment = '-infinity' AND s.occurred_at IS NULL AND s.as_delivered -> 'occurred_at' IS NULL
        THEN 'the record has no time'
    WHEN s.moment = '-infinity'
        THEN format('the record''s time (%s) is not believable', prepaid.said_time(s.occurred_at, s.as_delivered))
    WHEN s.moment < CAST(i.issued_on - CAST(:payment_max_age_days AS integer) AS timestamp) AT TIME ZONE zone.name
        THEN format('the record is of %s, more than %s days before invoice %s was issued',
                    prepaid.said_time(s.occurred_at, s.as_delivered), CAST(:payment_max_age_days AS integer), i.invoice_number)
    END AS reason) misfit;

-- name: judged_statistics
ANALYZE judged;
