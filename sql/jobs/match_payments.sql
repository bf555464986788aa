-- Gives each landed record one outcome: matched, parked (with a reason and a finance task),
-- superseded or waiting. Success alone matches nothing: amount, currency, reference and, when it is
-- given, the customer must fit the invoice too.

-- name: one_matcher_at_a_time
-- Two records for one invoice must not be judged side by side.
SELECT pg_advisory_xact_lock(hashtext('prepaid.match_payments'));

-- name: judge
WITH landed AS (
    SELECT t.*, prepaid.record_status(t.status) AS word
    FROM prepaid.transactions t
    WHERE t.outcome IS NULL ORDER BY t.transaction_id LIMIT :limit
    FOR UPDATE
), compared AS (
    SELECT l.transaction_id, l.provider, l.provider_ref, l.occurred_at, i.invoice_id,
        i.service_plan_id,
        CASE
            WHEN twin.transaction_id IS NOT NULL THEN 'superseded'
            WHEN l.word IN ('Pending', 'Unknown') THEN 'waiting'
        END AS outcome,
        CASE
            WHEN twin.transaction_id IS NOT NULL THEN 'the identical record was delivered before'
            WHEN other_content.transaction_id IS NOT NULL
                THEN 'the same event was delivered before with other content'
            WHEN l.word = 'Unknown' THEN format('status %s is not known', coalesce(l.status, 'nothing'))
            WHEN l.word = 'Pending' THEN 'the payment has not cleared yet'
            WHEN l.word <> 'Success' THEN format('the record says %s', l.status)
            WHEN l.invoice_number IS NULL THEN 'the record names no invoice'
            WHEN i.invoice_id IS NULL THEN format('there is no invoice %s', l.invoice_number)
            WHEN i.status = 'Void' THEN format('invoice %s is void', i.invoice_number)
            WHEN l.currency IS DISTINCT FROM i.currency
                THEN format('paid in %s, invoiced in %s', coalesce(l.currency, 'no currency'), i.currency)
            WHEN l.amount IS NULL OR l.amount <> i.total
                THEN format('paid %s, invoiced %s', coalesce(l.amount::text, 'nothing'), i.total)
            WHEN l.customer_ref <> c.customer_ref
                THEN format('the record names customer %s, the invoice %s', l.customer_ref, c.customer_ref)
            WHEN EXISTS (SELECT FROM prepaid.transactions m
                         WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched')
                THEN format('invoice %s has a matching record already', i.invoice_number)
            WHEN EXISTS (SELECT FROM prepaid.transactions m
                         WHERE m.provider = l.provider AND m.provider_ref = l.provider_ref
                           AND m.outcome = 'matched')
                THEN format('payment %s has paid another invoice', l.provider_ref)
        END AS reason
    FROM landed l
    LEFT JOIN prepaid.invoices i ON i.invoice_number = l.invoice_number
    LEFT JOIN prepaid.customers c ON c.customer_id = i.customer_id
    -- Other deliveries of the same event, identical or with other content: earlier ones, and those
    -- that were judged already (ids do not become visible in their order).
    LEFT JOIN LATERAL (
        SELECT t.transaction_id FROM prepaid.transactions t
        WHERE t.provider = l.provider AND t.provider_ref = l.provider_ref AND t.status = l.status
          AND t.occurred_at = l.occurred_at
          AND (t.transaction_id < l.transaction_id OR t.outcome IS NOT NULL)
          AND (t.invoice_number, t.amount, t.currency, t.customer_ref)
              IS NOT DISTINCT FROM (l.invoice_number, l.amount, l.currency, l.customer_ref)
        LIMIT 1
    ) twin ON true
    LEFT JOIN LATERAL (
        SELECT t.transaction_id FROM prepaid.transactions t
        WHERE t.provider = l.provider AND t.provider_ref = l.provider_ref AND t.status = l.status
          AND t.occurred_at = l.occurred_at
          AND (t.transaction_id < l.transaction_id OR t.outcome IS NOT NULL)
          AND (t.invoice_number, t.amount, t.currency, t.customer_ref)
              IS DISTINCT FROM (l.invoice_number, l.amount, l.currency, l.customer_ref)
        LIMIT 1
    ) other_content ON true
), placed AS (
    -- Several fitting records for one invoice, or one payment for several invoices, landed together:
    -- the earliest event counts. A record without a reference is a payment of its own.
    SELECT *, row_number() OVER (PARTITION BY outcome, reason, invoice_id
                                 ORDER BY occurred_at, transaction_id) AS invoice_place,
           row_number() OVER (PARTITION BY outcome, reason, provider, provider_ref,
                                  CASE WHEN provider IS NULL OR provider_ref IS NULL
                                       THEN transaction_id END
                              ORDER BY occurred_at, transaction_id) AS payment_place
    FROM compared
), judged AS (
    -- The others have their turn in the next round: by then it is known what was matched.
    SELECT transaction_id, invoice_id, service_plan_id, reason,
        CASE WHEN outcome IS NOT NULL THEN outcome
             WHEN reason IS NOT NULL THEN 'parked' ELSE 'matched' END AS outcome
    FROM placed
    WHERE outcome IS NOT NULL OR reason IS NOT NULL OR invoice_place = 1 AND payment_place = 1
), decided AS (
    UPDATE prepaid.transactions t
    SET outcome = j.outcome, outcome_reason = j.reason, invoice_id = j.invoice_id,
        decided_at = clock_timestamp()
    FROM judged j WHERE t.transaction_id = j.transaction_id
    RETURNING t.transaction_id, t.outcome, t.invoice_id, j.service_plan_id
), reviews AS (
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on)
    SELECT 'payment_review', service_plan_id, invoice_id, transaction_id, 'finance', :as_of
    FROM decided WHERE outcome = 'parked'
)
SELECT outcome, count(*) AS records FROM decided GROUP BY outcome;

-- name: supersede_waiting
-- A payment that waited has got its final word.
UPDATE prepaid.transactions w
SET outcome = 'superseded', outcome_reason = 'a later record of the same payment decided it',
    decided_at = clock_timestamp()
WHERE w.outcome = 'waiting'
  AND EXISTS (SELECT FROM prepaid.transactions d
              WHERE d.provider = w.provider AND d.provider_ref = w.provider_ref
                AND d.outcome IN ('matched', 'parked'));
