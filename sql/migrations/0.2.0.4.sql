-- Payment records are read in one way, by matching and by the figures; a time that cannot be believed
-- hides no chargeback; a record that breaks matching is set apart.

ALTER TABLE prepaid.transactions
    ADD COLUMN time_doubted boolean NOT NULL DEFAULT false,
    ADD COLUMN set_apart boolean NOT NULL DEFAULT false;
DROP INDEX prepaid.transactions_taken_back;
CREATE INDEX transactions_taken_back ON prepaid.transactions (occurred_at)
    WHERE status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed')
        OR lower(status) IN ('canceled', 'cancelled');

-- How a record is read, by matching and by the figures alike: when it happened, and what it moved.

-- A time that can be one of a payment: there, and of a year that programs have. (Of 1970-01-01 are the
-- clocks that were never set.)
CREATE FUNCTION prepaid.is_believable(occurred_at timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN coalesce(
    occurred_at >= timestamptz '1970-01-02 00:00:00Z'
    AND occurred_at < timestamptz '10000-01-01 00:00:00Z', false);

-- The latest time that is believed of what is judged for a business date: a day, for other time zones
-- and clocks, after both the clock and the end of that date.
CREATE FUNCTION prepaid.latest_believable(as_of date) RETURNS timestamptz LANGUAGE sql STABLE RETURN
    greatest(now(), (as_of + 1)::timestamp AT TIME ZONE (SELECT timezone FROM prepaid.installation))
    + interval '1 day';

-- The record's place among the events of its payment. One whose time is not believed never outranks
-- money that was taken back: the first word if it brings money or gives it back, and if it takes money
-- back the last one (of a day to come, until that day: a chargeback can be reversed after it).
CREATE FUNCTION prepaid.place_in_time(status text, occurred_at timestamptz, time_doubted boolean)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN prepaid.record_status(status) IN ('Failed', 'Refunded', 'Chargeback')
         THEN CASE WHEN prepaid.is_believable(occurred_at) THEN occurred_at ELSE timestamptz 'infinity' END
         WHEN prepaid.is_believable(occurred_at) AND NOT time_doubted THEN occurred_at
         ELSE timestamptz '-infinity' END;

-- When its money counts in the figures: where its time is not believed, on the day it was received.
CREATE FUNCTION prepaid.counted_at(occurred_at timestamptz, received_at timestamptz, time_doubted boolean)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN prepaid.is_believable(occurred_at) AND NOT time_doubted THEN occurred_at
         ELSE received_at END;

-- The time as a sentence quotes it, whatever the session's settings.
CREATE FUNCTION prepaid.said_time(occurred_at timestamptz, as_delivered jsonb)
RETURNS text LANGUAGE sql STABLE RETURN
    CASE WHEN occurred_at IS NULL
         THEN coalesce(substring(as_delivered ->> 'occurred_at' from '^[^ T]{1,20}')
                       || CASE WHEN as_delivered ->> 'occurred_at' LIKE '% BC' THEN ' BC' ELSE '' END, 'no time')
         WHEN NOT isfinite(occurred_at) THEN occurred_at::text
         ELSE to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')
              || CASE WHEN extract(year FROM occurred_at AT TIME ZONE 'UTC') < 0 THEN ' BC' ELSE '' END
    END;

-- The amount that a record says was moved; null if it says none: no number, or more than all money there
-- is, with which no sum could be made. What takes money back is said with either sign.
CREATE FUNCTION prepaid.amount_moved(status text, amount numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN abs(amount) < 1e18 THEN
        CASE WHEN prepaid.record_status(status) IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed')
             THEN abs(amount) ELSE amount END END;

-- Records that take money back, or give a chargeback back: what they move, beside the payment that they
-- belong to. amount: where the record says none, and of a Failed, the payment's. paid_amount,
-- paid_currency: what the payment brought, of a currency in which it fits an invoice if there is one.
-- is_ours: whether it was for an invoice of ours; null without any Success.
-- is_other_currency: the payment was in another; such a record is a question, and moves nothing of the
-- payment. speaks: of one event with several contents the one that counts (the payment's currency, the
-- largest amount).
CREATE FUNCTION prepaid.money_taken_back(records bigint[])
RETURNS TABLE (transaction_id bigint, amount numeric, currency text, paid_amount numeric,
               paid_currency text, is_ours boolean, is_other_currency boolean, speaks boolean)
LANGUAGE sql STABLE AS $$
    SELECT t.transaction_id,
           CASE WHEN t.word = 'Failed' THEN coalesce(paid.amount, said.amount)
                ELSE coalesce(said.amount, paid.amount) END,
           said.currency, paid.amount, paid.currency, paid.is_ours,
           coalesce(said.currency <> paid.currency, false),
           spoken.transaction_id IS NULL
               OR (spoken.amount, spoken.currency, spoken.invoice_number, spoken.customer_ref)
                  IS NOT DISTINCT FROM (t.amount, t.currency, t.invoice_number, t.customer_ref)
    FROM unnest(records) asked (transaction_id)
    CROSS JOIN LATERAL (SELECT *, prepaid.record_status(status) AS word FROM prepaid.transactions
                        WHERE transaction_id = asked.transaction_id OFFSET 0) t
    LEFT JOIN LATERAL (
        SELECT s.currency, bool_or(s.is_ours) AS is_ours, max(s.amount) FILTER (WHERE s.amount > 0) AS amount
        FROM (
            SELECT s.currency, prepaid.amount_moved(s.status, s.amount) AS amount,
                   i.invoice_id IS NOT NULL AS is_ours, i.currency = s.currency AS fits, s.occurred_at
            FROM prepaid.transactions s
            LEFT JOIN LATERAL (
                SELECT i.invoice_id, i.currency FROM prepaid.invoices i
                WHERE i.invoice_id = coalesce(s.invoice_id, (
                    SELECT n.invoice_id FROM prepaid.invoices n WHERE n.invoice_number = s.invoice_number))
                OFFSET 0) i ON true
            WHERE hashtextextended(s.provider_ref, 0) = hashtextextended(t.provider_ref, 0)
              AND s.provider = t.provider AND s.provider_ref = t.provider_ref
              AND s.provider <> '' AND s.provider_ref <> '' AND s.status = 'Success'
        ) s
        GROUP BY s.currency
        ORDER BY coalesce(bool_or(s.fits), false) DESC, bool_or(s.is_ours) DESC, min(s.occurred_at),
                 s.currency
        LIMIT 1
    ) paid ON true
    CROSS JOIN LATERAL (
        SELECT prepaid.amount_moved(t.status, t.amount) AS amount,
               coalesce(nullif(t.currency, ''), paid.currency) AS currency) said
    LEFT JOIN LATERAL (
        SELECT e.transaction_id, e.amount, e.currency, e.invoice_number, e.customer_ref
        FROM prepaid.transactions e
        WHERE hashtextextended(e.provider_ref, 0) = hashtextextended(t.provider_ref, 0)
          AND e.provider = t.provider AND e.provider_ref = t.provider_ref
          AND e.provider <> '' AND e.provider_ref <> ''
          AND prepaid.record_status(e.status) = t.word AND e.occurred_at IS NOT DISTINCT FROM t.occurred_at
        ORDER BY coalesce(nullif(e.currency, ''), paid.currency) IS DISTINCT FROM paid.currency,
                 prepaid.amount_moved(e.status, e.amount) DESC NULLS LAST, e.currency, e.invoice_number,
                 e.customer_ref, e.amount
        LIMIT 1
    ) spoken ON true
$$;

CREATE OR REPLACE FUNCTION prepaid.audit_record_outcomes() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'transaction_' || n.outcome, i.service_plan_id, 'transaction', n.transaction_id,
           o.outcome, n.outcome,
           CASE WHEN n.outcome_reason IS NOT NULL THEN prepaid.own_words(n.outcome_reason,
               left(n.customer_ref, 100),
               CASE WHEN n.set_apart THEN split_part(n.outcome_reason, ': ', 2) END,
               CASE WHEN prepaid.record_status(n.status) = 'Unknown' THEN left(n.status, 100) END,
               CASE WHEN n.currency !~ '^[A-Z]{3}$' THEN left(n.currency, 20) END,
               CASE WHEN NOT EXISTS (SELECT FROM prepaid.invoices named
                                     WHERE named.invoice_number = n.invoice_number)
                    THEN left(n.invoice_number, 100) END) END,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (transaction_id)
    LEFT JOIN prepaid.invoices i ON i.invoice_id = n.invoice_id
    WHERE n.outcome IS DISTINCT FROM o.outcome AND n.outcome IS NOT NULL;
    RETURN NULL;
END $$;

-- What a finance officer needs to decide: the invoice, the provider's record beside it, and in words
-- what differs. Of a payment in parts the last record is shown, with the amount of all.
-- UPDATE … SET decision = 'approved' | 'rejected', note = '…' WHERE task_id = …
CREATE OR REPLACE VIEW prepaid.payment_verifications AS
SELECT k.task_id, k.status, k.opened_on, i.invoice_number, p.service_plan_id,
       c.customer_ref, p.customer_name, p.plan_name, p.kind, i.currency, i.net, i.tax, i.total, i.payable,
       r.provider AS record_provider, r.provider_ref AS record_ref, r.status AS record_status,
       coalesce(matched.amount, r.amount) AS record_amount, r.currency AS record_currency,
       r.occurred_at AS record_at, coalesce(matched.records, 0) AS matched_records,
       d.difference IS NULL AS agrees, d.difference,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to,
       CASE WHEN i.payable > l.amount THEN 2 ELSE 1 END AS approvals_needed,
       k.first_approved_by, k.first_approved_at,
       coalesce(w.why_not, CASE WHEN n.what_to_do IS NOT NULL THEN 'there is nothing to approve yet' END)
           AS why_not,
       w.why_not IS NULL AND n.what_to_do IS NULL AS may_decide,
       w.why_not IS NULL OR w.is_first AND own.hand IS NULL AS may_reject,
       n.what_to_do
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.service_plans p ON p.service_plan_id = i.service_plan_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
LEFT JOIN LATERAL (
    SELECT count(*) AS records, sum(t.amount) AS amount, max(t.assigned_by) AS assigned_by
    FROM prepaid.transactions t WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched'
    HAVING count(*) > 0
) matched ON true
LEFT JOIN LATERAL (
    SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number, t.amount, t.currency, t.status,
           t.occurred_at, t.customer_ref, t.received_at, t.outcome, t.outcome_reason, t.invoice_id,
           t.decided_at, t.credit_note_id, t.assigned_by, t.assigned_note
    FROM prepaid.transactions t
    WHERE t.invoice_number = i.invoice_number AND matched.records IS NULL
       OR t.invoice_id = i.invoice_id AND t.outcome = 'matched'
    ORDER BY t.status = 'Success' DESC NULLS LAST, t.occurred_at DESC NULLS LAST, t.transaction_id
    LIMIT 1
) r ON true
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN r.transaction_id IS NULL THEN 'no record from a payment provider yet'
        WHEN r.status IS DISTINCT FROM 'Success'
            THEN format('the record says %s', coalesce(r.status, 'nothing'))
        WHEN r.currency IS DISTINCT FROM i.currency
            THEN format('the record is in %s, the invoice in %s', coalesce(r.currency, 'no currency'), i.currency)
        WHEN matched.assigned_by IS NOT NULL
            THEN format('%s was paid and assigned to this invoice by %s', matched.amount, matched.assigned_by)
        WHEN coalesce(matched.amount, r.amount) IS DISTINCT FROM i.payable
            THEN format('the record says %s, the invoice %s', coalesce(r.amount::text, 'nothing'), i.payable)
        WHEN r.customer_ref <> c.customer_ref
            THEN format('the record names customer %s, the invoice %s', r.customer_ref, c.customer_ref)
        WHEN r.outcome <> 'matched' THEN r.outcome_reason
        ELSE (SELECT format('a later record of the same payment says %s', coalesce(t.status, 'nothing'))
              FROM prepaid.transactions m
              JOIN prepaid.transactions t
                  ON hashtextextended(t.provider_ref, 0) = hashtextextended(m.provider_ref, 0)
                 AND t.provider = m.provider AND t.provider_ref = m.provider_ref
              WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched'
                AND t.outcome IS DISTINCT FROM 'superseded' AND t.credit_note_id IS NULL
                AND t.status IS DISTINCT FROM 'Success'
                AND (t.outcome = 'parked' OR t.occurred_at >= m.occurred_at)
              ORDER BY t.occurred_at DESC LIMIT 1)
    END AS difference
) d
LEFT JOIN prepaid.approval_limits l ON l.currency = i.currency
-- What differs pays nothing, and an approval would have no effect. (What a person has assigned may differ. What
-- fits and is not judged yet may be approved: should it be parked, finance is asked again.)
CROSS JOIN LATERAL (
    SELECT CASE WHEN d.difference IS NULL OR i.status <> 'Open' OR prepaid.payment_stands(i.invoice_id) THEN NULL
        WHEN r.transaction_id IS NULL
            THEN 'wait for the record, or assign a parked one to the invoice (prepaid payments assign)'
        ELSE 'assign records that pay the invoice (prepaid payments assign), or reject the payment'
    END AS what_to_do
) n
CROSS JOIN LATERAL (
    SELECT (SELECT e.what FROM prepaid.four_eyes e
            WHERE e.task_id = k.task_id AND e.person = prepaid.acting_person() LIMIT 1) AS hand OFFSET 0
) own
-- Why the acting person may not approve it, whatever came of the payment; decide_tasks says the same. (The
-- first of two may still reject.)
CROSS JOIN LATERAL (
    SELECT i.status = 'Open' AND k.status = 'Open' AND k.first_approved_by = prepaid.acting_person() AS is_first, CASE
        WHEN i.status <> 'Open' THEN format('invoice %s is already %s', i.invoice_number, i.status)
        WHEN NOT EXISTS (SELECT FROM prepaid.team_members m
                         WHERE m.team = prepaid.team_of('payment_verification')
                           AND m.person = prepaid.acting_person())
            THEN format('only %s decides on payments', k.assigned_role)
        WHEN k.status = 'Open' AND k.first_approved_by = prepaid.acting_person()
            THEN 'you have approved it already, as the first of two'
        WHEN own.hand IS NOT NULL THEN 'you ' || own.hand || CASE WHEN EXISTS (
            SELECT FROM prepaid.tasks_nobody_may_decide u WHERE u.task_id = k.task_id)
            THEN format('; nobody in %s may decide it, so add somebody to the team', k.assigned_role) ELSE '' END
    END AS why_not OFFSET 0
) w
WHERE k.kind = 'payment_verification' AND k.status <> 'Withdrawn';

-- As it was, with the new columns.
-- Which open invoices a parked payment may be meant for. A help for finance; nothing acts on it. By the
-- customer or by the number: never by the amount alone, which many invoices share. (NOT MATERIALIZED: who
-- asks about some records does not wait for the others.)
CREATE OR REPLACE VIEW prepaid.payment_suggestions AS
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

-- Finance says which invoice a parked record pays. The record stays as it was delivered; who assigned
-- it is noted, and match_payments judges it again. It may be over more than the invoice.
CREATE OR REPLACE FUNCTION prepaid.assign_record(record bigint, to_invoice text, reason text)
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

-- Of what was judged before, a time later than the clock and than all business dates is doubted from now
-- on. (What such a record has paid stays paid, as long as nothing was taken back.)
UPDATE prepaid.transactions SET time_doubted = true
WHERE outcome IS NOT NULL
  AND occurred_at > greatest(now(), (SELECT max(as_of) + 1 FROM prepaid.batches)) + interval '1 day';

-- Money taken back behind such a Success, or before any Success of its payment, was passed over: it is
-- judged again by the next run of match_payments.
UPDATE prepaid.transactions t SET outcome = NULL, outcome_reason = NULL
WHERE t.status IN ('Failed', 'Refunded', 'Chargeback') AND t.outcome = 'superseded'
  AND t.outcome_reason IN ('a later record says that the payment stands',
                           'a later record of the same payment decided it')
  AND EXISTS (
      SELECT FROM prepaid.transactions s
      WHERE hashtextextended(s.provider_ref, 0) = hashtextextended(t.provider_ref, 0)
        AND s.provider = t.provider AND s.provider_ref = t.provider_ref AND s.status = 'Success'
      HAVING bool_or(s.time_doubted OR NOT prepaid.is_believable(s.occurred_at))
          OR t.status <> 'Failed' AND min(s.occurred_at) > t.occurred_at
          OR NOT prepaid.is_believable(t.occurred_at));
