-- Gives each landed record one outcome: matched, parked (with a reason and a finance task), superseded
-- or waiting. The outcome follows from the set of records and not from the order in which they were
-- delivered: with each new record everything that hangs together with it (the same payment, the same
-- invoice) is judged again, by the time of the events. docs/payments.md has the table of all cases.
-- A payment is what one (provider, provider_ref) names; its records are its events.

-- name: one_matcher_at_a_time
-- Two records for one invoice must not be judged side by side.
SELECT prepaid.take_lock('payment matching');

-- name: connected
CREATE TEMP TABLE connected (
    transaction_id bigint PRIMARY KEY, payment text NOT NULL, own boolean NOT NULL,
    invoice_id bigint, service_plan_id bigint,
    -- Its place among the events of its payment; whether it takes money back, or gives it back.
    moment timestamptz NOT NULL, doubted boolean NOT NULL, takes_back boolean NOT NULL
) ON COMMIT DROP;

-- name: collect
-- From the landed records over their payments and invoice numbers to all that hangs together with
-- them. By keys, not by records: a number that a thousand records share is looked up once. With
-- records only those of the landed are looked at, as if the others came later: one of them breaks it.
WITH RECURSIVE landed AS (
    SELECT transaction_id, provider, provider_ref, invoice_number,
           CASE WHEN entry_digest IS NOT NULL AND status = 'Success'
                THEN coalesce(bank_ref, provider_ref) END AS booked_ref
    FROM prepaid.transactions
    WHERE outcome IS NULL
      AND (CAST(:records AS bigint[]) IS NULL OR transaction_id = ANY (CAST(:records AS bigint[])))
    ORDER BY transaction_id LIMIT :limit
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
    UNION
    -- What a bank has announced under the reference that it books now.
    SELECT t.transaction_id FROM landed
    CROSS JOIN LATERAL (
        SELECT t.transaction_id FROM prepaid.transactions t
        WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(landed.booked_ref, 0)
          AND t.provider = landed.provider AND t.provider_ref = landed.booked_ref AND t.outcome = 'waiting'
        UNION ALL
        SELECT t.transaction_id FROM prepaid.transactions t
        WHERE hashtextextended(t.bank_ref, 0) = hashtextextended(landed.booked_ref, 0)
          AND t.provider = landed.provider AND t.bank_ref = landed.booked_ref AND t.outcome = 'waiting'
        OFFSET 0
    ) t
    WHERE landed.booked_ref IS NOT NULL
)
INSERT INTO connected
SELECT t.transaction_id,
       CASE WHEN named.payment THEN concat(length(t.provider), ' ', t.provider, t.provider_ref)
            ELSE concat('#', t.transaction_id) END,
       NOT named.payment, i.invoice_id, i.service_plan_id,
       prepaid.place_in_time(t.status, t.occurred_at, doubt.yes), doubt.yes,
       coalesce(prepaid.record_status(t.status)
           IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed'), false)
FROM ids
CROSS JOIN LATERAL (SELECT * FROM prepaid.transactions
                    WHERE transaction_id = ids.transaction_id OFFSET 0) t
CROSS JOIN LATERAL (SELECT CASE WHEN t.decided_at IS NULL
    THEN coalesce(t.occurred_at > (SELECT prepaid.latest_believable(:as_of)), false)
    ELSE t.time_doubted END AS yes) doubt
CROSS JOIN LATERAL (SELECT coalesce(t.provider <> '' AND t.provider_ref <> '', false) AS payment) named
LEFT JOIN LATERAL (
    SELECT invoice_id, service_plan_id FROM prepaid.invoices
    WHERE invoice_number = t.invoice_number AND t.assigned_by IS NULL
    UNION ALL
    SELECT invoice_id, service_plan_id FROM prepaid.invoices
    WHERE invoice_id = t.invoice_id AND t.assigned_by IS NOT NULL
    OFFSET 0) i ON true
-- Those that broke it before are left alone, and with records those whose turn has not come.
WHERE CASE WHEN t.outcome IS NOT NULL THEN NOT t.set_apart
           ELSE CAST(:records AS bigint[]) IS NULL
                OR t.transaction_id = ANY (CAST(:records AS bigint[])) END;
