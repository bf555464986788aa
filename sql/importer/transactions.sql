-- transactions.csv: into the landing table as they are; its trigger drops the identical event, and
-- match_payments gives each of the others its outcome. An amount or a time that the columns cannot hold
-- arrives with a blank before it, as no other value does, and is kept as text beside the record.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, provider text, provider_ref text, invoice_number text, amount text,
    currency text, status text, occurred_at text, customer_ref text
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, provider, provider_ref, invoice_number, amount, currency, status, occurred_at,
               customer_ref) FROM STDIN;

-- name: count
WITH landed AS (
    INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency,
                                      status, occurred_at, customer_ref, as_delivered)
    SELECT provider, provider_ref, invoice_number,
           CASE WHEN amount NOT LIKE ' %' THEN amount::numeric END, currency, status,
           CASE WHEN occurred_at NOT LIKE ' %' THEN occurred_at::timestamptz END, customer_ref,
           CASE WHEN amount LIKE ' %' OR occurred_at LIKE ' %' THEN jsonb_strip_nulls(jsonb_build_object(
               'amount', CASE WHEN amount LIKE ' %' THEN ltrim(amount) END,
               'occurred_at', CASE WHEN occurred_at LIKE ' %' THEN ltrim(occurred_at) END)) END
    FROM incoming ORDER BY line
    RETURNING transaction_id
)
SELECT count(*) AS added, 0 AS changed FROM landed;

-- name: analyze
ANALYZE prepaid.transactions;
