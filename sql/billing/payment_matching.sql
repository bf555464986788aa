-- Gives each landed record one outcome: matched, parked (with a reason and a finance task), superseded
-- or waiting. The outcome follows from the set of records and not from the order in which they were
-- delivered: with each new record everything that hangs together with it (the same payment, the same
-- invoice) is judged anew, by the time of the events. docs/payments.md has the table of all cases.
-- A payment is what one (provider, provider_ref) names; its records are its events.

-- name: one_matcher_at_a_time
-- Two records for one invoice must not be judged side by side.
SELECT pg_advisory_xact_lock(hashtext('prepaid.match_payments'));

-- name: connected
CREATE TEMP TABLE connected (
    transaction_id bigint PRIMARY KEY, payment text NOT NULL, own boolean NOT NULL,
    invoice_id bigint, service_plan_id bigint
) ON COMMIT DROP;

-- name: collect
-- From the landed records over their payments and invoice numbers to all that hangs together with
-- them. By keys, not by records: a number that a thousand records share is looked up once.
WITH RECURSIVE landed AS (
    SELECT transaction_id, provider, provider_ref, invoice_number
    FROM prepaid.transactions WHERE outcome IS NULL ORDER BY transaction_id LIMIT :limit
), keys (provider, provider_ref, number) AS (
    SELECT k.* FROM landed t
    CROSS JOIN LATERAL (VALUES (t.provider, t.provider_ref, NULL), (NULL, NULL, t.invoice_number)) k
    WHERE k.column1 <> '' AND k.column2 <> '' OR k.column3 <> ''
    UNION
    SELECT k.* FROM keys
    CROSS JOIN LATERAL (
        SELECT t.provider, t.provider_ref, t.invoice_number, t.assigned_by, t.invoice_id
        FROM prepaid.transactions t
        WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(keys.provider_ref, 0)
          AND t.provider = keys.provider AND t.provider_ref = keys.provider_ref
        UNION ALL
        SELECT t.provider, t.provider_ref, t.invoice_number, t.assigned_by, t.invoice_id
        FROM prepaid.transactions t WHERE t.invoice_number = keys.number
        UNION ALL
        SELECT t.provider, t.provider_ref, t.invoice_number, t.assigned_by, t.invoice_id
        FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
        WHERE i.invoice_number = keys.number AND t.assigned_by IS NOT NULL
        OFFSET 0
    ) t
    CROSS JOIN LATERAL (
        SELECT t.provider, t.provider_ref, NULL WHERE t.provider <> '' AND t.provider_ref <> ''
        UNION ALL SELECT NULL, NULL, t.invoice_number WHERE t.invoice_number <> ''
        UNION ALL SELECT NULL, NULL, i.invoice_number FROM prepaid.invoices i
                  WHERE t.assigned_by IS NOT NULL AND i.invoice_id = t.invoice_id
    ) k
), ids AS (
    SELECT transaction_id FROM landed
    UNION
    SELECT t.transaction_id FROM keys
    CROSS JOIN LATERAL (
        SELECT t.transaction_id FROM prepaid.transactions t
        WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(keys.provider_ref, 0)
          AND t.provider = keys.provider AND t.provider_ref = keys.provider_ref
        UNION ALL
        SELECT t.transaction_id FROM prepaid.transactions t WHERE t.invoice_number = keys.number
        UNION ALL
        SELECT t.transaction_id FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
        WHERE i.invoice_number = keys.number AND t.assigned_by IS NOT NULL
        OFFSET 0
    ) t
)
INSERT INTO connected
SELECT t.transaction_id,
       CASE WHEN named.payment THEN concat(length(t.provider), ' ', t.provider, t.provider_ref)
            ELSE concat('#', t.transaction_id) END,
       NOT named.payment, i.invoice_id, i.service_plan_id
FROM ids
CROSS JOIN LATERAL (SELECT * FROM prepaid.transactions
                    WHERE transaction_id = ids.transaction_id OFFSET 0) t
CROSS JOIN LATERAL (SELECT coalesce(t.provider <> '' AND t.provider_ref <> '', false) AS payment) named
LEFT JOIN LATERAL (
    SELECT invoice_id, service_plan_id FROM prepaid.invoices
    WHERE invoice_number = t.invoice_number AND t.assigned_by IS NULL
    UNION ALL
    SELECT invoice_id, service_plan_id FROM prepaid.invoices
    WHERE invoice_id = t.invoice_id AND t.assigned_by IS NOT NULL
    OFFSET 0) i ON true;

-- name: connected_statistics
ANALYZE connected;

-- name: lock_plans
-- Plans first, as the steps do: nobody pays, cancels or activates one of them while it is judged.
SELECT service_plan_id FROM prepaid.service_plans
WHERE service_plan_id IN (SELECT service_plan_id FROM connected)
ORDER BY service_plan_id FOR NO KEY UPDATE;

-- name: judged
-- fits: full (pays the invoice alone), part, or null with the reason in misfit. was_…: as judged before.
CREATE TEMP TABLE judged (
    transaction_id bigint PRIMARY KEY, payment text, at timestamptz, status text, amount numeric,
    customer_ref text, invoice_id bigint, invoice_number text, payable numeric, paid boolean,
    provider_ref text, assigned boolean, fits text, misfit text, content text,
    outcome text, reason text, credit_note_id bigint,
    was_outcome text, was_invoice_id bigint
) ON COMMIT DROP;

-- name: judge_events
-- What each record says beside the other events of its payment. An event is undone by a later one: a
-- Failed or Refunded by a later Success, a Chargeback by a later Success or ChargebackReversed. At the
-- same moment money taken back counts as the later event, and the reversal as later than that.
WITH records AS (
    SELECT t.transaction_id, t.provider_ref, t.invoice_number, t.amount, t.currency, t.status,
           t.customer_ref, t.assigned_by, t.outcome, t.outcome_reason, t.invoice_id,
           c.payment, c.own, c.invoice_id AS asked_invoice_id,
           prepaid.record_status(t.status) AS word, coalesce(t.occurred_at, '-infinity') AS moment,
           NOT c.own AND row_number() OVER (
               PARTITION BY c.payment, t.status, t.occurred_at, t.invoice_number, t.amount,
                            t.currency, t.customer_ref
               ORDER BY t.outcome IS NULL, t.transaction_id) > 1 AS twin,
           -- Finance has dealt with it elsewhere, such as paid it back: it pays nothing any more,
           -- unless a person assigns it.
           t.outcome IS NOT DISTINCT FROM 'parked' AND t.assigned_by IS NULL AND EXISTS (
               SELECT FROM prepaid.tasks k WHERE k.transaction_id = t.transaction_id
                 AND k.kind = 'payment_review' AND k.status = 'Done' OFFSET 0) AS closed
    FROM connected c
    CROSS JOIN LATERAL (SELECT * FROM prepaid.transactions
                        WHERE transaction_id = c.transaction_id OFFSET 0) t
), timed AS (
    SELECT *,
           max(moment) FILTER (WHERE word = 'Success') OVER events AS last_success,
           max(moment) FILTER (WHERE word = 'ChargebackReversed') OVER events AS last_reversal,
           min(moment) FILTER (WHERE word = 'Chargeback') OVER events AS first_chargeback,
           max(moment) FILTER (WHERE word NOT IN ('Pending', 'Unknown')) OVER events AS last_decisive,
           max(asked_invoice_id) FILTER (WHERE word = 'Success') OVER events AS paid_invoice_id
    FROM records
    WINDOW events AS (PARTITION BY payment)
), asked_back AS (
    -- Refunds that one of our credit notes asked for, in one piece or in several, as the payment was.
    SELECT t.transaction_id, n.credit_note_id,
           sum(t.amount) OVER (PARTITION BY n.credit_note_id ORDER BY t.moment, t.transaction_id)
               <= n.refund AS asked
    FROM timed t
    CROSS JOIN LATERAL (
        SELECT n.credit_note_id, n.refund FROM prepaid.credit_notes n
        WHERE n.refund >= t.amount AND t.amount > 0 AND n.currency = t.currency
          AND (n.credit_note_number = t.invoice_number
               OR n.invoice_id = t.paid_invoice_id
                  AND (t.asked_invoice_id = n.invoice_id OR t.invoice_number IS NULL))
        ORDER BY n.credit_note_id LIMIT 1) n
    WHERE t.word = 'Refunded' AND NOT t.twin
), weighed AS (
    SELECT t.*, a.credit_note_id,
           CASE WHEN t.twin OR a.credit_note_id IS NOT NULL THEN false
                WHEN t.word IN ('Failed', 'Refunded') THEN coalesce(t.last_success <= t.moment, true)
                WHEN t.word = 'Chargeback' THEN coalesce(t.last_success <= t.moment, true)
                                            AND coalesce(t.last_reversal < t.moment, true)
                ELSE false END AS takes_back
    FROM timed t
    LEFT JOIN asked_back a ON a.transaction_id = t.transaction_id AND a.asked
), refunded AS (
    SELECT *, sum(amount) FILTER (WHERE takes_back AND word = 'Refunded') OVER events
                  < max(amount) FILTER (WHERE word = 'Success') OVER events AS partly_refunded,
           max(amount) FILTER (WHERE word = 'Success') OVER events AS paid_amount
    FROM weighed
    WINDOW events AS (PARTITION BY payment)
), standing AS (
    -- A part that is refunded does not take the payment back; finance is asked about it.
    SELECT *, max(CASE word WHEN 'Failed' THEN 1 WHEN 'Refunded' THEN 2 ELSE 3 END)
                  FILTER (WHERE takes_back AND NOT (word = 'Refunded' AND partly_refunded IS TRUE))
                  OVER (PARTITION BY payment) AS taken_back
    FROM refunded
)
INSERT INTO judged
SELECT s.transaction_id, s.payment, s.moment, s.status, s.amount, s.customer_ref, i.invoice_id,
       i.invoice_number, i.payable, i.status = 'Paid', s.provider_ref, s.assigned_by IS NOT NULL,
       CASE WHEN s.word = 'Success' AND misfit.reason IS NULL AND NOT s.closed
            THEN CASE WHEN s.amount = i.payable THEN 'full' ELSE 'part' END END,
       misfit.reason,
       to_jsonb(ARRAY[s.invoice_number, s.amount::text, s.currency, s.customer_ref])::text,
       CASE
           WHEN s.twin THEN 'superseded'
           WHEN s.credit_note_id IS NOT NULL THEN 'matched'
           WHEN s.word IN ('Pending', 'Unknown')
               THEN CASE WHEN s.last_decisive >= s.moment THEN 'superseded' ELSE 'waiting' END
           WHEN s.word = 'Success' THEN CASE WHEN s.taken_back IS NOT NULL THEN 'superseded'
                                             WHEN s.closed THEN 'parked' END
           WHEN s.word = 'ChargebackReversed'
               THEN CASE WHEN s.first_chargeback <= s.moment AND s.last_success IS NOT NULL
                         THEN 'superseded' ELSE 'parked' END
           WHEN s.word = 'Failed' AND s.last_decisive > s.moment THEN 'superseded'
           WHEN s.takes_back THEN 'parked'
           ELSE 'superseded' END,
       CASE
           WHEN s.twin THEN 'the identical record was delivered before'
           WHEN s.credit_note_id IS NOT NULL THEN NULL
           WHEN s.word IN ('Pending', 'Unknown') AND s.last_decisive >= s.moment
               THEN 'a later record of the same payment decided it'
           WHEN s.word = 'Unknown' THEN format('status %s is not known', coalesce(left(s.status, 100), 'nothing'))
           WHEN s.word = 'Pending' THEN 'the payment has not cleared yet'
           WHEN s.word = 'Success' AND s.taken_back IS NOT NULL
               THEN format('a later record of the same payment says %s',
                           (ARRAY['Failed', 'Refunded', 'Chargeback'])[s.taken_back])
           WHEN s.word = 'Success' THEN CASE WHEN s.closed THEN s.outcome_reason END
           WHEN s.word = 'ChargebackReversed' AND s.first_chargeback <= s.moment
               AND s.last_success IS NOT NULL THEN 'the chargeback is reversed'
           WHEN s.word = 'ChargebackReversed' AND s.last_success IS NULL
               THEN 'the record reverses a chargeback, but no Success of this payment was delivered'
           WHEN s.word = 'ChargebackReversed'
               THEN 'the record reverses a chargeback that was not delivered'
           WHEN s.word = 'Failed' AND s.last_decisive > s.moment
               THEN 'a later record of the same payment decided it'
           WHEN s.takes_back AND s.word = 'Refunded' AND s.partly_refunded
               THEN format('refunded %s of %s', s.amount, s.paid_amount)
           WHEN s.takes_back THEN format('the record says %s', s.word)
           ELSE 'a later record says that the payment stands' END,
       s.credit_note_id, s.outcome,
       CASE WHEN s.outcome IS NOT NULL THEN s.invoice_id END
FROM standing s
LEFT JOIN LATERAL (SELECT * FROM prepaid.invoices
                   WHERE invoice_id = s.asked_invoice_id OFFSET 0) i ON true
LEFT JOIN prepaid.customers c USING (customer_id)
CROSS JOIN LATERAL (SELECT CASE
    WHEN s.invoice_number IS NULL AND i.invoice_id IS NULL THEN 'the record names no invoice'
    WHEN i.invoice_id IS NULL THEN format('there is no invoice %s', left(s.invoice_number, 100))
    WHEN i.status = 'Void' THEN format('invoice %s is void', i.invoice_number)
    WHEN s.currency IS DISTINCT FROM i.currency
        THEN format('paid in %s, invoiced in %s', coalesce(left(s.currency, 20), 'no currency'), i.currency)
    WHEN s.amount IS NULL OR s.amount = 'NaN' OR s.amount <= 0 AND s.amount <> i.payable
         OR s.amount > i.payable AND s.assigned_by IS NULL
        THEN format('paid %s, invoiced %s', coalesce(left(s.amount::text, 40), 'nothing'), i.payable)
    WHEN s.customer_ref <> c.customer_ref AND s.assigned_by IS NULL
        THEN format('the record names customer %s, the invoice %s', left(s.customer_ref, 100), c.customer_ref)
    END AS reason) misfit;

-- name: judged_statistics
ANALYZE judged;

-- name: keep_paid
-- An invoice that is Paid stays with the records that paid it, as long as their money stands.
UPDATE judged j SET outcome = 'matched'
FROM (SELECT was_invoice_id FROM judged
      WHERE was_outcome = 'matched' AND was_invoice_id IS NOT NULL
      GROUP BY was_invoice_id HAVING bool_and(outcome IS NULL AND fits IS NOT NULL AND paid)) stands
WHERE j.was_invoice_id = stands.was_invoice_id AND j.was_outcome = 'matched';

-- name: match_assigned
-- What a person has assigned counts first, once it covers the invoice.
UPDATE judged j SET outcome = 'matched'
FROM (SELECT invoice_id FROM judged
      WHERE outcome IS NULL AND fits IS NOT NULL AND assigned
      GROUP BY invoice_id HAVING sum(amount) >= min(payable)) covered
WHERE j.invoice_id = covered.invoice_id AND j.assigned AND j.outcome IS NULL AND j.fits IS NOT NULL
  AND NOT EXISTS (SELECT FROM judged k
                  WHERE k.outcome = 'matched' AND k.credit_note_id IS NULL
                    AND (k.invoice_id = j.invoice_id OR k.payment = j.payment));

-- name: match_next
-- The earliest event wins, for the invoice and for the payment: one payment pays one invoice. What
-- stands behind another one has its turn in the next round, when it is known which of them was free.
UPDATE judged j SET outcome = 'matched'
FROM (
    SELECT transaction_id,
           row_number() OVER (PARTITION BY invoice_id ORDER BY at, content, payment, transaction_id)
               AS invoice_place,
           row_number() OVER (PARTITION BY payment ORDER BY at, content, transaction_id)
               AS payment_place
    FROM judged
    WHERE outcome IS NULL AND fits = 'full' AND NOT assigned
      AND invoice_id NOT IN (SELECT invoice_id FROM judged
                             WHERE outcome = 'matched' AND invoice_id IS NOT NULL)
      AND payment NOT IN (SELECT payment FROM judged
                          WHERE outcome = 'matched' AND credit_note_id IS NULL)
) next
WHERE next.transaction_id = j.transaction_id AND invoice_place = 1 AND payment_place = 1;

-- name: match_parts
-- Several payments that add up to the invoice, to the cent, pay it together.
WITH parts AS (
    SELECT DISTINCT ON (payment) transaction_id, invoice_id, amount, payable
    FROM judged
    WHERE outcome IS NULL AND fits = 'part' AND NOT assigned
      AND invoice_id NOT IN (SELECT invoice_id FROM judged
                             WHERE outcome = 'matched' AND invoice_id IS NOT NULL)
      AND payment NOT IN (SELECT payment FROM judged
                          WHERE outcome = 'matched' AND credit_note_id IS NULL)
    ORDER BY payment, at, content, transaction_id
)
UPDATE judged j SET outcome = 'matched'
FROM parts p
WHERE p.transaction_id = j.transaction_id
  AND p.invoice_id IN (SELECT invoice_id FROM parts
                       GROUP BY invoice_id HAVING sum(amount) = min(payable));

-- name: park_the_rest
UPDATE judged j
SET outcome = CASE WHEN why.again THEN 'superseded' ELSE 'parked' END,
    reason = CASE
        WHEN why.again THEN 'the same payment was reported before'
        WHEN why.other_content THEN 'the same event was delivered with other content, too'
        WHEN why.used_elsewhere THEN format('payment %s has paid another invoice', left(j.provider_ref, 100))
        WHEN j.misfit IS NOT NULL THEN j.misfit
        WHEN why.taken THEN format('invoice %s has a matching record already', j.invoice_number)
        WHEN why.parts > 1 THEN format('paid %s, invoiced %s; %s records in all, over %s',
                                       j.amount, j.payable, why.parts, why.total)
        ELSE format('paid %s, invoiced %s', j.amount, j.payable) END
FROM (
    SELECT r.transaction_id,
           bool_or(m.content = r.content AND m.invoice_id = r.invoice_id AND m.at <> r.at) AS again,
           r.twins > 1 AS other_content,
           bool_or(m.invoice_id <> r.invoice_id) AS used_elsewhere,
           r.taken, r.parts, r.total
    FROM (
        SELECT *, count(*) OVER (PARTITION BY payment, status, at) AS twins,
               bool_or(outcome = 'matched') OVER (PARTITION BY invoice_id) AS taken,
               count(*) FILTER (WHERE outcome IS NULL AND fits IS NOT NULL)
                   OVER (PARTITION BY invoice_id) AS parts,
               sum(amount) FILTER (WHERE outcome IS NULL AND fits IS NOT NULL)
                   OVER (PARTITION BY invoice_id) AS total
        FROM judged WHERE outcome IS DISTINCT FROM 'superseded'
    ) r
    LEFT JOIN judged m ON m.payment = r.payment AND m.outcome = 'matched' AND m.credit_note_id IS NULL
    WHERE r.outcome IS NULL
    GROUP BY r.transaction_id, r.twins, r.taken, r.parts, r.total
) why
WHERE why.transaction_id = j.transaction_id;

-- name: decide
WITH decided AS (
    UPDATE prepaid.transactions t
    SET outcome = j.outcome, outcome_reason = j.reason, credit_note_id = j.credit_note_id,
        invoice_id = CASE WHEN j.credit_note_id IS NULL THEN j.invoice_id END,
        decided_at = clock_timestamp()
    FROM judged j
    WHERE t.transaction_id = j.transaction_id
      AND (t.outcome, t.outcome_reason, t.credit_note_id, t.invoice_id) IS DISTINCT FROM
          (j.outcome, j.reason, j.credit_note_id, CASE WHEN j.credit_note_id IS NULL THEN j.invoice_id END)
    RETURNING t.transaction_id, t.outcome, j.was_outcome
)
SELECT outcome, count(*) AS records FROM decided
WHERE outcome IS DISTINCT FROM was_outcome GROUP BY outcome;

-- name: withdraw_reviews
-- Finance need not look any more: another record has explained this one.
UPDATE prepaid.tasks k SET status = 'Withdrawn'
FROM judged j
WHERE k.transaction_id = j.transaction_id AND k.kind = 'payment_review' AND k.status = 'Open'
  AND j.outcome <> 'parked';

-- name: ask_for_reviews
INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on)
SELECT 'payment_review', i.service_plan_id, i.invoice_id, j.transaction_id, 'finance', :as_of
FROM judged j
LEFT JOIN LATERAL (SELECT invoice_id, service_plan_id FROM prepaid.invoices
                   WHERE invoice_id = j.invoice_id OFFSET 0) i ON true
WHERE j.outcome = 'parked'
  AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.transaction_id = j.transaction_id
                  AND k.kind = 'payment_review'
                  -- What finance has closed stays closed, until the record was used in between.
                  AND (k.status = 'Open' OR k.status = 'Done' AND j.was_outcome = 'parked') OFFSET 0)
ORDER BY j.transaction_id;

-- name: bereft
-- Invoices that have lost a record that paid them.
CREATE TEMP TABLE bereft (
    invoice_id bigint PRIMARY KEY, service_plan_id bigint, plan_status text, payment text
) ON COMMIT DROP;

-- name: find_bereft
INSERT INTO bereft
SELECT DISTINCT ON (i.invoice_id) i.invoice_id, i.service_plan_id, p.status, j.reason
FROM judged j
JOIN prepaid.invoices i ON i.invoice_id = j.was_invoice_id AND i.status <> 'Void'
JOIN prepaid.service_plans p USING (service_plan_id)
WHERE j.was_outcome = 'matched'
  AND (j.outcome <> 'matched' OR j.invoice_id IS DISTINCT FROM j.was_invoice_id)
ORDER BY i.invoice_id, j.transaction_id;

-- name: reopen_invoices
UPDATE prepaid.invoices i SET status = 'Open', paid_on = NULL, transaction_id = NULL
FROM bereft b WHERE i.invoice_id = b.invoice_id;

-- name: withdraw_approvals
-- The approval was for the money that is gone; the next payment is verified anew.
UPDATE prepaid.tasks k SET status = 'Withdrawn'
FROM bereft b
WHERE k.invoice_id = b.invoice_id AND k.kind = 'payment_verification'
  AND k.status = 'Done' AND k.decision = 'approved';

-- name: ask_for_verification
-- Of a plan that was cancelled after its activation only when there is money again.
INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on)
SELECT 'payment_verification', i.service_plan_id, i.invoice_id, 'finance', :as_of
FROM (SELECT invoice_id FROM bereft WHERE plan_status <> 'Cancelled'
      UNION SELECT invoice_id FROM judged WHERE outcome = 'matched' AND NOT paid) asked
CROSS JOIN LATERAL (SELECT * FROM prepaid.invoices WHERE invoice_id = asked.invoice_id OFFSET 0) i
WHERE i.status = 'Open' AND i.payable > 0
  AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                  AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn' OFFSET 0)
ORDER BY i.invoice_id;

-- name: withdraw_refunds
-- Nobody pays back what the customer has taken back already.
UPDATE prepaid.tasks k SET status = 'Withdrawn'
FROM bereft b JOIN prepaid.credit_notes n USING (invoice_id)
WHERE k.credit_note_id = n.credit_note_id AND k.kind = 'payment_refund' AND k.status = 'Open';

-- name: ask_for_refunds
-- The money is there again, and with it what was to be paid back of it.
INSERT INTO prepaid.tasks
    (kind, service_plan_id, invoice_id, credit_note_id, assigned_role, opened_on)
SELECT DISTINCT 'payment_refund', n.service_plan_id, n.invoice_id, n.credit_note_id, 'finance',
       CAST(:as_of AS date)
FROM judged j JOIN prepaid.credit_notes n USING (invoice_id)
WHERE j.outcome = 'matched' AND n.refund > 0
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.credit_note_id = n.credit_note_id AND k.kind = 'payment_refund'
                    AND k.status <> 'Withdrawn');

-- name: leave_batches
-- A worker that has the plan in hand finds it gone from its batch. The steps finish it again later.
INSERT INTO prepaid.unsettled_plans AS u (service_plan_id)
SELECT DISTINCT service_plan_id FROM bereft ORDER BY service_plan_id
ON CONFLICT (service_plan_id) DO UPDATE SET batch_id = NULL WHERE u.batch_id IS NOT NULL;

-- name: hold_reversed
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT b.service_plan_id, 'payment_reversed', format(
    'The payment of invoice %s does not stand: %s. The invoice is open again. Clear it up with the '
    'customer: a new payment, or cancel the plan (void its invoice if the term is over).', i.invoice_number, b.payment)
FROM bereft b JOIN prepaid.invoices i USING (invoice_id)
WHERE b.plan_status IN ('Active', 'Expired')
  AND NOT EXISTS (SELECT FROM judged j
                  WHERE j.invoice_id = b.invoice_id AND j.outcome = 'matched' AND j.credit_note_id IS NULL)
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: release_reversed
UPDATE prepaid.holds h
SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the invoice has a payment that stands'
FROM judged j JOIN prepaid.invoices i USING (invoice_id)
WHERE j.outcome = 'matched' AND j.credit_note_id IS NULL AND h.service_plan_id = i.service_plan_id
  AND h.reason_code = 'payment_reversed' AND h.released_at IS NULL;

