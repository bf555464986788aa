-- transactions.csv: into the landing table as they are; its trigger drops the identical event, and
-- match_payments gives each of the others its outcome.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, provider text, provider_ref text, invoice_number text, amount numeric,
    currency text, status text, occurred_at timestamptz, customer_ref text
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, provider, provider_ref, invoice_number, amount, currency, status, occurred_at,
               customer_ref) FROM STDIN;

-- name: count
WITH landed AS (
    INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency,
                                      status, occurred_at, customer_ref)
    SELECT provider, provider_ref, invoice_number, amount, currency, status, occurred_at, customer_ref
    FROM incoming ORDER BY line
    RETURNING transaction_id
)
SELECT count(*) AS added, 0 AS changed FROM landed;

-- name: analyze
ANALYZE prepaid.transactions;
