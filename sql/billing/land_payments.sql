-- Records of payment providers and banks, into the landing table. Its trigger drops the identical
-- event, and match_payments gives each of the others its outcome.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, event_ref text, provider text, provider_ref text, invoice_number text,
    amount numeric, currency text, status text, occurred_at timestamptz, customer_ref text,
    original_refs text[], cumulative boolean, place integer GENERATED ALWAYS AS IDENTITY
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, event_ref, provider, provider_ref, invoice_number, amount, currency, status,
               occurred_at, customer_ref, original_refs, cumulative) FROM STDIN;

-- name: statistics
ANALYZE incoming;

-- name: originals
-- Money that was taken back belongs to the payment that brought it: to the one that the record names,
-- else to the only one that paid the same invoice. It keeps its own reference where there is neither.
-- What landed before stays as it is, whatever is known by now. (References are looked up by their
-- hashes, as the index has them.)
WITH taken AS (
    SELECT i.* FROM incoming i
    WHERE i.original_refs IS NOT NULL
      AND NOT EXISTS (SELECT FROM prepaid.transactions own
                      WHERE hashtextextended(own.provider_ref, 0)
                            = hashtextextended(i.provider_ref, 0)
                        AND own.provider = i.provider AND own.provider_ref = i.provider_ref
                        AND own.status = i.status)
), before AS (
    SELECT i.place, min(t.provider_ref) AS original
    FROM taken i
    JOIN prepaid.transactions t
      ON t.invoice_number = i.invoice_number AND t.provider = i.provider AND t.status = i.status
     AND t.occurred_at = i.occurred_at AND t.amount = i.amount AND t.currency = i.currency
    GROUP BY i.place
), named AS (
    SELECT DISTINCT i.place, i.provider, ref FROM taken i CROSS JOIN LATERAL unnest(original_refs) ref
), paid AS (
    SELECT provider, provider_ref, invoice_number, currency
    FROM incoming WHERE status = 'Success'
    UNION
    SELECT provider, provider_ref, invoice_number, currency
    FROM prepaid.transactions
    WHERE status = 'Success' AND invoice_number IN (SELECT invoice_number FROM taken)
    UNION
    SELECT t.provider, t.provider_ref, t.invoice_number, t.currency
    FROM named n
    JOIN prepaid.transactions t
      ON hashtextextended(t.provider_ref, 0) = hashtextextended(n.ref, 0)
     AND t.provider = n.provider AND t.provider_ref = n.ref
    WHERE t.status = 'Success'
), by_name AS (
    SELECT n.place, min(n.ref) AS original
    FROM named n JOIN paid p ON p.provider = n.provider AND p.provider_ref = n.ref
    GROUP BY n.place HAVING count(DISTINCT n.ref) = 1
), by_invoice AS (
    SELECT provider, invoice_number, currency, min(provider_ref) AS original
    FROM paid GROUP BY provider, invoice_number, currency HAVING count(DISTINCT provider_ref) = 1
)
UPDATE incoming i SET provider_ref = chosen.original
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
                                      status, occurred_at, customer_ref)
    SELECT provider, provider_ref, invoice_number, amount, currency, status,
           occurred_at + (dense_rank() OVER (PARTITION BY provider, provider_ref, status, occurred_at
                                             ORDER BY event_ref) - 1) * interval '1 microsecond',
           customer_ref
    FROM incoming ORDER BY place
    RETURNING transaction_id
)
SELECT count(*) AS landed FROM landed;

-- name: analyze
ANALYZE prepaid.transactions;
