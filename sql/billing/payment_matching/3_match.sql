-- Which records pay their invoices. The rest are parked, and all outcomes are written.

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
        WHEN why.other_content THEN 'the same event was also delivered with different content'
        WHEN why.used_elsewhere THEN format('payment %s has paid another invoice', left(j.provider_ref, 100))
        WHEN j.misfit IS NOT NULL THEN j.misfit
        WHEN why.taken THEN format('invoice %s already has a matching record', j.invoice_number)
        WHEN why.parts > 1 THEN format('paid %s, invoiced %s; %s records together pay %s',
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

-- name: one_matter_per_invoice
-- However often a payment of an invoice fails, finance is asked about the first time only, and not when
-- the invoice is paid or void.
UPDATE judged j
SET outcome = 'superseded',
    reason = CASE WHEN failed.is_paid THEN format('invoice %s has a matching record', j.invoice_number)
                  WHEN failed.is_void THEN format('invoice %s is void', j.invoice_number)
                  ELSE format('a payment of invoice %s has failed before', j.invoice_number) END
FROM (
    SELECT f.transaction_id, i.status = 'Void' AS is_void,
           f.invoice_id IN (SELECT invoice_id FROM judged
                            WHERE outcome = 'matched' AND credit_note_id IS NULL
                              AND invoice_id IS NOT NULL) AS is_paid,
           row_number() OVER (PARTITION BY f.invoice_id ORDER BY f.at, f.content, f.payment,
                              f.transaction_id) AS place
    FROM judged f JOIN prepaid.invoices i USING (invoice_id)
    WHERE f.outcome = 'parked' AND prepaid.record_status(f.status) = 'Failed'
      AND f.payment NOT IN (SELECT payment FROM judged WHERE status = 'Success')
) failed
WHERE failed.transaction_id = j.transaction_id
  AND (failed.is_paid OR failed.is_void OR failed.place > 1);

-- name: decide
WITH decided AS (
    UPDATE prepaid.transactions t
    SET outcome = j.outcome, outcome_reason = j.reason, credit_note_id = j.credit_note_id,
        invoice_id = CASE WHEN j.credit_note_id IS NULL THEN j.invoice_id END,
        decided_at = clock_timestamp(), time_doubted = j.doubted, set_apart = false
    FROM judged j
    WHERE t.transaction_id = j.transaction_id
      AND (t.outcome, t.outcome_reason, t.credit_note_id, t.invoice_id) IS DISTINCT FROM
          (j.outcome, j.reason, j.credit_note_id, CASE WHEN j.credit_note_id IS NULL THEN j.invoice_id END)
    RETURNING t.transaction_id, t.outcome, j.was_outcome
)
SELECT outcome, count(*) AS records FROM decided
WHERE outcome IS DISTINCT FROM was_outcome GROUP BY outcome;
