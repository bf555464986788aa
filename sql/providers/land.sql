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
-- else to the only one that paid the same invoice. It keeps its own reference where there is neither,
-- and where it landed with it before.
WITH taken AS (
    SELECT DISTINCT provider, event_ref, provider_ref, invoice_number, currency, status, original_refs
    FROM incoming WHERE original_refs IS NOT NULL
), paid AS (
    SELECT i.provider, i.provider_ref, i.invoice_number, i.currency
    FROM incoming i WHERE i.status = 'Success'
    UNION
    SELECT t.provider, t.provider_ref, t.invoice_number, t.currency
    FROM prepaid.transactions t
    WHERE t.status = 'Success'
      AND t.invoice_number IN (SELECT invoice_number FROM taken)
    UNION
    SELECT t.provider, t.provider_ref, t.invoice_number, t.currency
    FROM taken CROSS JOIN LATERAL unnest(original_refs) named (ref)
    JOIN prepaid.transactions t ON t.provider = taken.provider AND t.provider_ref = named.ref
    WHERE t.status = 'Success'
), chosen AS (
    SELECT t.provider, t.event_ref, coalesce(named.ref, alike.ref) AS original
    FROM taken t
    LEFT JOIN LATERAL (
        SELECT CASE WHEN count(DISTINCT p.provider_ref) = 1 THEN min(p.provider_ref) END AS ref
        FROM paid p WHERE p.provider = t.provider AND p.provider_ref = ANY (t.original_refs)
    ) named ON true
    LEFT JOIN LATERAL (
        SELECT CASE WHEN count(DISTINCT p.provider_ref) = 1 THEN min(p.provider_ref) END AS ref
        FROM paid p
        WHERE p.provider = t.provider AND p.invoice_number = t.invoice_number
          AND p.currency = t.currency
    ) alike ON true
    WHERE NOT EXISTS (SELECT FROM prepaid.transactions own
                      WHERE own.provider = t.provider AND own.provider_ref = t.provider_ref
                        AND own.status = t.status)
)
UPDATE incoming i SET provider_ref = c.original
FROM chosen c
WHERE i.provider = c.provider AND i.event_ref = c.event_ref AND i.original_refs IS NOT NULL
  AND c.original IS NOT NULL;

-- name: refunded_since
-- An export that tells all refunds of a payment in one sum: what is new is the difference.
UPDATE incoming i SET amount = i.amount - landed.amount
FROM (SELECT n.place, sum(t.amount) AS amount
      FROM incoming n
      JOIN prepaid.transactions t
        ON t.provider = n.provider AND t.provider_ref = n.provider_ref AND t.currency = n.currency
      WHERE n.cumulative AND n.status = 'Refunded' AND t.status = 'Refunded'
      GROUP BY n.place) landed
WHERE i.place = landed.place;

-- name: told_before
DELETE FROM incoming i
WHERE i.cumulative
  AND (i.status = 'Refunded' AND i.amount <= 0
       OR i.status IN ('Chargeback', 'ChargebackReversed')
          AND EXISTS (SELECT FROM prepaid.transactions t
                      WHERE t.provider = i.provider AND t.provider_ref = i.provider_ref
                        AND t.status = i.status));

-- name: count
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
