-- Records of payment providers and banks, into the landing table. Its trigger drops the identical
-- event, and match_payments gives each of the others its outcome.
-- An entry of a bank statement has a digest of all that the bank wrote about it. Entries that are the
-- same in all of that are different payments nevertheless: a statement brings as many of them as it has
-- more than have landed.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, event_ref text, provider text, provider_ref text, invoice_number text,
    amount numeric, currency text, status text, occurred_at timestamptz, customer_ref text,
    original_refs text[], cumulative boolean, entry_digest text, statement integer, as_delivered jsonb,
    place integer GENERATED ALWAYS AS IDENTITY,
    -- Of an entry: which of the identical ones it is, the bank's reference if its own had to differ, and
    -- whether that is settled.
    copy integer, bank_ref text, is_named boolean NOT NULL DEFAULT false
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, event_ref, provider, provider_ref, invoice_number, amount, currency, status,
               occurred_at, customer_ref, original_refs, cumulative, entry_digest, statement,
               as_delivered) FROM STDIN;

-- name: statistics
ANALYZE incoming;

-- name: number_entries
UPDATE incoming i SET copy = numbered.copy
FROM (SELECT place, row_number() OVER (PARTITION BY statement, provider, status, entry_digest
                                       ORDER BY place) AS copy
      FROM incoming WHERE entry_digest IS NOT NULL) numbered
WHERE i.place = numbered.place;

-- name: drop_known_entries
-- What another statement has brought, be it one of the same file.
DELETE FROM incoming i
USING (SELECT place, provider, status, entry_digest, copy,
              row_number() OVER (PARTITION BY provider, status, entry_digest, copy ORDER BY place) AS again
       FROM incoming WHERE entry_digest IS NOT NULL) entry
LEFT JOIN (SELECT provider, status, entry_digest, count(*) AS copies
           FROM prepaid.transactions
           WHERE entry_digest IN (SELECT entry_digest FROM incoming)
           GROUP BY provider, status, entry_digest) landed USING (provider, status, entry_digest)
WHERE i.place = entry.place AND (entry.again > 1 OR entry.copy <= landed.copies);

-- name: recognised
-- Entries that landed without a digest, before there was one or from another kind of file: by what
-- their record says, each for one entry.
CREATE TEMP TABLE recognised ON COMMIT DROP AS
WITH entries AS (
    SELECT place, provider, provider_ref, entry_digest, copy, to_jsonb(ARRAY[
               status, invoice_number, trim_scale(amount)::text, currency,
               prepaid.business_date(occurred_at)::text])::text AS content
    FROM incoming WHERE entry_digest IS NOT NULL
), landed AS (
    SELECT t.transaction_id, t.provider, t.provider_ref, to_jsonb(ARRAY[
               t.status, t.invoice_number, trim_scale(t.amount)::text, t.currency,
               prepaid.business_date(t.occurred_at)::text])::text AS content
    FROM prepaid.transactions t
    WHERE t.entry_digest IS NULL
      AND hashtextextended(t.provider_ref, 0) IN (SELECT hashtextextended(provider_ref, 0) FROM entries)
)
SELECT e.place, l.transaction_id, e.entry_digest, e.copy
FROM (SELECT *, row_number() OVER (PARTITION BY provider, provider_ref, content ORDER BY place) AS turn
      FROM entries) e
JOIN (SELECT *, row_number() OVER (PARTITION BY provider, provider_ref, content
                                   ORDER BY transaction_id) AS turn
      FROM landed) l USING (provider, provider_ref, content, turn);

-- name: note_recognised
UPDATE prepaid.transactions t SET entry_digest = r.entry_digest
FROM recognised r WHERE t.transaction_id = r.transaction_id;

-- name: drop_recognised
DELETE FROM incoming i USING recognised r WHERE i.place = r.place;

-- name: tell_recognised_apart
-- They took each other for the same payment. Each gets a reference of its own and is judged again, unless
-- it pays an invoice or finance has dealt with it.
WITH shared AS (
    SELECT t.transaction_id, r.copy, count(*) OVER payment AS payments,
           row_number() OVER (payment ORDER BY r.transaction_id IS NULL DESC, t.transaction_id) AS place,
           r.transaction_id IS NOT NULL AND t.outcome IS DISTINCT FROM 'matched' AND NOT EXISTS (
               SELECT FROM prepaid.tasks k WHERE k.transaction_id = t.transaction_id
                 AND k.kind = 'payment_review' AND k.status = 'Done' OFFSET 0) AS is_open
    FROM prepaid.transactions t
    LEFT JOIN recognised r USING (transaction_id)
    WHERE t.status = 'Success'
      AND (t.provider, t.provider_ref) IN (
          SELECT k.provider, k.provider_ref FROM recognised JOIN prepaid.transactions k USING (transaction_id))
      AND hashtextextended(t.provider_ref, 0) IN (
          SELECT hashtextextended(k.provider_ref, 0)
          FROM recognised JOIN prepaid.transactions k USING (transaction_id))
    WINDOW payment AS (PARTITION BY t.provider, t.provider_ref)
)
UPDATE prepaid.transactions t
SET provider_ref = CASE s.place WHEN 1 THEN t.provider_ref ELSE concat(
        t.provider_ref, '/', left(t.entry_digest, 12), '-' || nullif(s.copy, 1)) END,
    bank_ref = CASE s.place WHEN 1 THEN t.bank_ref ELSE t.provider_ref END,
    outcome = NULL, outcome_reason = NULL
FROM shared s
WHERE t.transaction_id = s.transaction_id AND s.payments > 1 AND s.is_open;

-- name: name_entries
-- A reference that an account has given to one payment names that one. Another payment with the same
-- reference (the same number for all entries of a day, or a counter that starts anew each day) gets
-- one made of it and of its digest. What is announced and then booked is one payment, when its
-- amount and number are the same. What comes back (:returns) and has found no payment joins none, only
-- a payment that is delivered after it and was made before it.
WITH asked AS (
    SELECT place, provider, provider_ref, status, invoice_number, amount, currency, occurred_at, copy
    FROM incoming
    WHERE entry_digest IS NOT NULL AND NOT is_named AND (original_refs IS NOT NULL) = :returns
), named AS (
    SELECT t.transaction_id, t.provider, t.provider_ref, t.status, t.invoice_number, t.amount, t.currency,
           t.occurred_at
    FROM prepaid.transactions t
    WHERE hashtextextended(t.provider_ref, 0) IN (SELECT hashtextextended(provider_ref, 0) FROM asked)
    UNION ALL
    SELECT place, provider, provider_ref, status, invoice_number, amount, currency, occurred_at
    FROM incoming WHERE is_named
), compared AS (
    SELECT *, CASE WHEN status = 'Success' THEN 'paid'
                   WHEN status IN ('Refunded', 'Chargeback') THEN 'back' ELSE 'announced' END AS kind,
           to_jsonb(ARRAY[invoice_number, trim_scale(amount)::text, currency])::text AS content
    FROM (SELECT true AS is_new, asked.* FROM asked
          UNION ALL
          SELECT false, named.*, NULL FROM named
          WHERE (provider, provider_ref) IN (SELECT provider, provider_ref FROM asked)) every
), held AS (
    SELECT is_new, place, provider, provider_ref, kind, occurred_at, copy,
           first_value(content) OVER (payment ORDER BY is_new, kind = 'paid' DESC, occurred_at, place)
               = content
           AND CASE kind
               WHEN 'paid' THEN coalesce(occurred_at <= min(occurred_at)
                                         FILTER (WHERE kind = 'back' AND NOT is_new) OVER payment, true)
               WHEN 'back' THEN NOT bool_or(kind = 'paid') OVER payment
               ELSE true END AS fits
    FROM compared
    WINDOW payment AS (PARTITION BY provider, provider_ref)
), placed AS (
    SELECT is_new, place, copy, fits AND row_number() OVER (
               PARTITION BY provider, provider_ref, kind, fits OR NOT is_new
               ORDER BY is_new, occurred_at, place) = 1 AS is_the_one
    FROM held
)
UPDATE incoming i
SET is_named = true,
    bank_ref = CASE WHEN NOT p.is_the_one THEN i.provider_ref END,
    provider_ref = CASE WHEN p.is_the_one THEN i.provider_ref ELSE concat(
        i.provider_ref, '/', left(i.entry_digest, 12), '-' || nullif(p.copy, 1)) END
FROM placed p WHERE p.is_new AND i.place = p.place;

-- name: originals
-- Money that was taken back belongs to the payment that brought it: to the one that the record names,
-- else to the only one that paid the same invoice. It keeps its own reference where there is neither.
-- What landed before stays as it is, whatever is known by now. (References are looked up by their
-- hashes, as the index has them.)
WITH taken AS (
    SELECT i.* FROM incoming i
    WHERE i.original_refs IS NOT NULL
      AND (i.entry_digest IS NOT NULL OR NOT EXISTS (
                      SELECT FROM prepaid.transactions own
                      WHERE hashtextextended(own.provider_ref, 0)
                            = hashtextextended(i.provider_ref, 0)
                        AND own.provider = i.provider AND own.provider_ref = i.provider_ref
                        AND own.status = i.status))
), before AS (
    SELECT i.place, min(t.provider_ref) AS original
    FROM taken i
    JOIN prepaid.transactions t
      ON t.invoice_number = i.invoice_number AND t.provider = i.provider AND t.status = i.status
     AND t.occurred_at = i.occurred_at AND t.amount = i.amount AND t.currency = i.currency
    WHERE i.entry_digest IS NULL OR t.entry_digest IS NULL
    GROUP BY i.place
), named AS (
    SELECT DISTINCT i.place, i.provider, ref FROM taken i CROSS JOIN LATERAL unnest(original_refs) ref
), paid AS (
    SELECT provider, provider_ref, bank_ref, invoice_number, currency, amount
    FROM incoming WHERE status = 'Success'
    UNION
    SELECT provider, provider_ref, bank_ref, invoice_number, currency, amount
    FROM prepaid.transactions
    WHERE status = 'Success' AND invoice_number IN (SELECT invoice_number FROM taken)
    UNION
    SELECT t.provider, t.provider_ref, t.bank_ref, t.invoice_number, t.currency, t.amount
    FROM named n
    JOIN prepaid.transactions t
      ON hashtextextended(t.provider_ref, 0) = hashtextextended(n.ref, 0)
     AND t.provider = n.provider AND t.provider_ref = n.ref
    WHERE t.status = 'Success'
    UNION
    SELECT t.provider, t.provider_ref, t.bank_ref, t.invoice_number, t.currency, t.amount
    FROM named n
    JOIN prepaid.transactions t
      ON hashtextextended(t.bank_ref, 0) = hashtextextended(n.ref, 0)
     AND t.provider = n.provider AND t.bank_ref = n.ref
    WHERE t.status = 'Success'
), by_name AS (
    -- Of several payments with that reference the one of the same invoice, and of the same amount.
    SELECT place, min(provider_ref) AS original
    FROM (SELECT n.place, p.provider_ref, dense_rank() OVER (
                     PARTITION BY n.place
                     ORDER BY coalesce(p.invoice_number = i.invoice_number, false) DESC,
                              p.amount = i.amount DESC NULLS LAST) AS likeness
          FROM named n
          JOIN incoming i USING (place)
          JOIN (SELECT paid.*, ref FROM paid
                CROSS JOIN LATERAL (VALUES (provider_ref), (bank_ref)) refs (ref)) p
              ON p.provider = n.provider AND p.ref = n.ref
          -- A bank's reference may be that of another payment, which names another invoice.
          WHERE i.entry_digest IS NULL OR coalesce(p.invoice_number = i.invoice_number, true)) found
    WHERE likeness = 1
    GROUP BY place HAVING count(DISTINCT provider_ref) = 1
), by_invoice AS (
    SELECT provider, invoice_number, currency, min(provider_ref) AS original
    FROM paid GROUP BY provider, invoice_number, currency HAVING count(DISTINCT provider_ref) = 1
)
UPDATE incoming i SET provider_ref = chosen.original, is_named = true
FROM (SELECT t.place, coalesce(before.original, by_name.original, by_invoice.original) AS original
      FROM taken t
      LEFT JOIN before USING (place)
      LEFT JOIN by_name USING (place)
      LEFT JOIN by_invoice USING (provider, invoice_number, currency)) chosen
WHERE i.place = chosen.place AND chosen.original IS NOT NULL;

-- name: refunded_since
-- An export that tells all refunds of a payment in one sum: what is new is the difference.
UPDATE incoming i SET amount = i.amount - landed.amount
FROM (SELECT n.place, sum(t.amount) AS amount
      FROM incoming n
      JOIN prepaid.transactions t
        ON hashtextextended(t.provider_ref, 0) = hashtextextended(n.provider_ref, 0)
       AND t.provider = n.provider AND t.provider_ref = n.provider_ref AND t.currency = n.currency
      WHERE n.cumulative AND n.status = 'Refunded' AND t.status = 'Refunded'
      GROUP BY n.place) landed
WHERE i.place = landed.place;

-- name: told_before
DELETE FROM incoming i
WHERE i.cumulative
  AND (i.status = 'Refunded' AND i.amount <= 0
       OR i.status IN ('Chargeback', 'ChargebackReversed')
          AND EXISTS (SELECT FROM prepaid.transactions t
                      WHERE hashtextextended(t.provider_ref, 0)
                            = hashtextextended(i.provider_ref, 0)
                        AND t.provider = i.provider AND t.provider_ref = i.provider_ref
                        AND t.status = i.status));

-- name: land
-- Events of one payment at the same moment are told apart by a microsecond, in the order of their own
-- references, so that every delivery gives them the same times.
WITH landed AS (
    INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency,
                                      status, occurred_at, customer_ref, entry_digest, bank_ref,
                                      as_delivered)
    SELECT provider, provider_ref, invoice_number, amount, currency, status,
           occurred_at + (dense_rank() OVER (PARTITION BY provider, provider_ref, status, occurred_at
                                             ORDER BY event_ref) - 1) * interval '1 microsecond',
           customer_ref, entry_digest, bank_ref, as_delivered
    FROM incoming ORDER BY place
    RETURNING transaction_id
)
SELECT count(*) AS landed FROM landed;

-- name: analyze
ANALYZE prepaid.transactions;
