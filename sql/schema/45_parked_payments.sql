-- Payments that fit no invoice: what may have been meant, and finance assigning one to its invoice.

-- An invoice number without what hands and machines change about it: case, blanks, dashes.
CREATE FUNCTION prepaid.plain_number(number text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    upper(regexp_replace(number, '[^[:alnum:]]', '', 'g'));

-- What may have been meant by a number: itself, and each with two neighbours exchanged. (Not with one
-- wrong digit: that is the number of another invoice.)
CREATE FUNCTION prepaid.meant_numbers(number text) RETURNS TABLE (plain text, slip text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    WITH given AS (SELECT prepaid.plain_number(left(number, 100)) AS x)
    SELECT x, 'written differently' FROM given WHERE x <> ''
    UNION
    SELECT overlay(x PLACING reverse(substr(x, n, 2)) FROM n FOR 2), 'two digits exchanged'
    FROM given CROSS JOIN LATERAL generate_series(1, least(length(x), 40) - 1) n
    WHERE substr(x, n, 1) <> substr(x, n + 1, 1)
$$;

-- Which open invoices a parked payment may be meant for. A help for finance; nothing acts on it. By the
-- customer or by the number: never by the amount alone, which many invoices share. A number that is one
-- of an invoice means that one, and no other that looks like it; one that is only written differently
-- means that before any slip of the fingers. (NOT MATERIALIZED: who asks about some records does not wait
-- for the others.)
CREATE VIEW prepaid.payment_suggestions AS
WITH parked AS NOT MATERIALIZED (
    SELECT t.* FROM prepaid.tasks k JOIN prepaid.transactions t USING (transaction_id)
    WHERE k.kind = 'payment_review' AND k.status = 'Open' AND t.outcome = 'parked'
      AND t.status = 'Success'
), candidates AS (
    SELECT t.transaction_id, i.invoice_id, NULL AS slip
    FROM parked t
    JOIN prepaid.customers c USING (customer_ref)
    JOIN prepaid.invoices i ON i.customer_id = c.customer_id AND i.status = 'Open'
    UNION ALL
    SELECT t.transaction_id, i.invoice_id, 'as the record has it'
    FROM parked t
    JOIN prepaid.invoices i ON i.invoice_number = t.invoice_number AND i.status = 'Open'
    UNION ALL
    SELECT t.transaction_id, i.invoice_id, meant.slip
    FROM parked t
    CROSS JOIN LATERAL prepaid.meant_numbers(t.invoice_number) meant
    JOIN prepaid.invoices i ON prepaid.plain_number(i.invoice_number) = meant.plain AND i.status = 'Open'
    WHERE NOT EXISTS (SELECT FROM prepaid.invoices named WHERE named.invoice_number = t.invoice_number OFFSET 0)
      AND (meant.slip = 'written differently' OR NOT EXISTS (
              SELECT FROM prepaid.invoices plain
              WHERE prepaid.plain_number(plain.invoice_number)
                    = prepaid.plain_number(left(t.invoice_number, 100)) OFFSET 0))
), fitting AS (
    SELECT found.*, t.invoice_number = i.invoice_number AS is_named,
           coalesce(bool_or(t.invoice_number = i.invoice_number) OVER (PARTITION BY found.transaction_id),
                    false) AS one_is_named
    FROM (SELECT transaction_id, invoice_id, max(slip) AS slip FROM candidates GROUP BY 1, 2) found
    JOIN parked t USING (transaction_id)
    JOIN prepaid.invoices i ON i.invoice_id = found.invoice_id
    WHERE i.payable = t.amount AND i.currency = t.currency
      AND NOT EXISTS (SELECT FROM prepaid.transactions m
                      WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched')
)
SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number AS record_invoice_number,
       t.amount, t.currency, t.customer_ref AS record_customer_ref, t.occurred_at, t.outcome_reason,
       i.invoice_number, i.service_plan_id, c.customer_ref, c.name AS customer_name, i.issued_on,
       concat_ws('; ', 'same amount', CASE WHEN t.customer_ref = c.customer_ref THEN 'same customer' END,
                 'the number: ' || found.slip) AS because
FROM fitting found
JOIN parked t USING (transaction_id)
JOIN prepaid.invoices i ON i.invoice_id = found.invoice_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
WHERE found.is_named OR NOT found.one_is_named;

-- Parked payments that finance is asked about: the record, why it is parked, which open invoices it may
-- be meant for, and what can be done.
CREATE VIEW prepaid.parked_payments AS
SELECT k.task_id, k.status, k.opened_on, k.due_on, k.assigned_to, t.transaction_id, t.provider,
       t.provider_ref, t.invoice_number AS record_invoice_number, t.customer_ref, t.amount, t.currency,
       t.status AS record_status, t.occurred_at, t.outcome, t.outcome_reason AS reason,
       k.service_plan_id, coalesce(s.suggestions, '[]') AS suggestions,
       CASE WHEN t.outcome = 'parked' AND t.status = 'Success'
            THEN 'assign it to the open invoice that it pays, or pay it back; then decide the task'
            ELSE 'clear it up with the provider; then decide the task' END AS what_to_do,
       k.decision, k.note, k.decided_by, k.decided_at, t.as_delivered
FROM prepaid.tasks k
JOIN prepaid.transactions t USING (transaction_id)
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('invoice_number', p.invoice_number,
               'customer_ref', p.customer_ref, 'customer_name', p.customer_name,
               'because', p.because) ORDER BY p.invoice_number) AS suggestions
    FROM prepaid.payment_suggestions p WHERE p.transaction_id = t.transaction_id OFFSET 0) s ON true
WHERE k.kind = 'payment_review' AND k.status <> 'Withdrawn';

-- Finance says which invoice a parked record pays. The record stays as it was delivered; who assigned
-- it is noted, and match_payments judges it again. It may be over more than the invoice.
CREATE FUNCTION prepaid.assign_record(record bigint, to_invoice text, reason text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('assign payments', reason);
    paid prepaid.transactions;
    asked prepaid.invoices;
BEGIN
    PERFORM take_lock('payment matching');
    SELECT * INTO paid FROM prepaid.transactions WHERE transaction_id = record FOR UPDATE;
    SELECT * INTO asked FROM prepaid.invoices WHERE invoice_number = to_invoice;
    IF paid.transaction_id IS NULL THEN
        RAISE EXCEPTION 'there is no payment record %', record;
    ELSIF paid.outcome IS DISTINCT FROM 'parked' THEN
        RAISE EXCEPTION 'payment record % is %: only a parked one can be assigned', record,
            coalesce(paid.outcome, 'not judged yet');
    ELSIF prepaid.record_status(paid.status) <> 'Success' THEN
        RAISE EXCEPTION 'payment record % says %: only Success pays', record, paid.status;
    ELSIF asked.invoice_id IS NULL THEN
        RAISE EXCEPTION 'there is no invoice %', to_invoice;
    ELSIF asked.status <> 'Open' THEN
        RAISE EXCEPTION 'invoice % is %: only an open one can be paid', to_invoice, asked.status;
    ELSIF paid.currency IS DISTINCT FROM asked.currency THEN
        RAISE EXCEPTION 'payment record % is in %, invoice % in %', record, paid.currency, to_invoice,
            asked.currency;
    ELSIF EXISTS (SELECT FROM prepaid.transactions t
                  WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(paid.provider_ref, 0)
                    AND t.provider = paid.provider AND t.provider_ref = paid.provider_ref
                    AND t.provider <> '' AND t.provider_ref <> '' AND t.outcome = 'matched'
                    AND t.credit_note_id IS NULL) THEN
        RAISE EXCEPTION 'payment % has paid an invoice already: it pays one only', paid.provider_ref;
    ELSIF NOT coalesce(prepaid.amount_moved(paid.status, paid.amount) > 0, false) THEN
        RAISE EXCEPTION 'payment record % has the amount %: it pays nothing', record,
            left(paid.amount::text, 40);
    END IF;
    UPDATE prepaid.transactions
    SET assigned_by = person, assigned_note = concat_ws(E'\n', assigned_note, reason),
        invoice_id = asked.invoice_id, outcome = NULL, outcome_reason = NULL
    WHERE transaction_id = record;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, detail, actor, run_id, as_of)
    VALUES ('transaction_assigned', asked.service_plan_id, 'transaction', record, 'parked',
            format('to invoice %s', to_invoice), person, prepaid.run_id(), prepaid.as_of());
    PERFORM prepaid.withdraw_own_approvals(ARRAY[asked.service_plan_id]);
END $$;
