-- Landing table of payment providers' records. Nothing that a provider writes is refused: no
-- foreign key, no CHECK. match_payments gives every record one outcome.

CREATE TABLE prepaid.transactions (
    transaction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider text,
    provider_ref text,
    invoice_number text,
    amount numeric,
    currency text,
    status text,
    occurred_at timestamptz,
    customer_ref text,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Written by match_payments: matched, parked, superseded or waiting; null until then.
    outcome text,
    outcome_reason text,
    invoice_id bigint,
    decided_at timestamptz,
    -- A refund that a credit note asked for; a record that a person assigned to its invoice.
    credit_note_id bigint,
    assigned_by text,
    -- Why that person did: not in the audit log, which holds no personal data.
    assigned_note text,
    -- Of an entry of a bank statement: what tells it from the others (a hash of all that the bank wrote
    -- about it), and the bank's reference where other payments have it too, so that provider_ref had to
    -- be a longer one.
    entry_digest text,
    bank_ref text,
    -- What the columns cannot hold, by the column's name, as it was written.
    as_delivered jsonb,
    -- When it was first judged, no clock showed its time yet. Kept: what is a question to a person does
    -- not become an answer by waiting.
    time_doubted boolean NOT NULL DEFAULT false,
    -- Judging it failed. It is parked, and the others are judged without it.
    set_apart boolean NOT NULL DEFAULT false
);
-- Looked up by hashes: a reference may be longer than what a B-tree takes.
CREATE INDEX transactions_by_event
    ON prepaid.transactions (hashtextextended(provider_ref, 0), occurred_at);
CREATE INDEX transactions_by_invoice_number ON prepaid.transactions USING hash (invoice_number);
CREATE INDEX transactions_by_invoice ON prepaid.transactions (invoice_id);
CREATE INDEX transactions_by_bank_ref ON prepaid.transactions (hashtextextended(bank_ref, 0))
    WHERE bank_ref IS NOT NULL;
CREATE INDEX transactions_by_entry ON prepaid.transactions (entry_digest) WHERE entry_digest IS NOT NULL;
CREATE INDEX transactions_undecided ON prepaid.transactions (transaction_id) WHERE outcome IS NULL;
-- What the monthly figures of payments taken back are made from: few of all records.
CREATE INDEX transactions_taken_back ON prepaid.transactions (occurred_at)
    WHERE status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed')
        OR lower(status) IN ('canceled', 'cancelled');

-- A status in our words. Providers' words for a checkout that the customer has not completed are
-- Unfinished, those for one that was called off are Failed: no money is on its way. Any word that we do
-- not know is Unknown: a state of its own, never guessed.
CREATE FUNCTION prepaid.record_status(status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN status IN ('Success', 'Pending', 'Failed', 'Refunded', 'Chargeback',
                         'ChargebackReversed', 'Unfinished') THEN status
         WHEN lower(status) IN ('canceled', 'cancelled') THEN 'Failed'
         WHEN lower(status) IN ('requires_payment_method', 'requires_action', 'requires_confirmation')
         THEN 'Unfinished' ELSE 'Unknown' END;

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

-- Amounts and times that a reader could stumble over: of more digits than any money has, of a year that
-- most programs do not have, infinite, no number.
CREATE FUNCTION prepaid.is_bearable(amount numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(abs(amount) < 1e15 AND scale(trim_scale(amount)) <= 15, amount IS NULL);
CREATE FUNCTION prepaid.is_bearable(moment timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(moment >= '0002-01-01 00:00+00' AND moment < '9999-01-01 00:00+00', true);

-- What a provider writes is landed whatever it is. What readers cannot bear stands beside the record as
-- text, and the record has no amount or no time: finance is asked about it.
CREATE FUNCTION prepaid.keep_as_delivered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT prepaid.is_bearable(NEW.amount) THEN
        NEW.as_delivered := coalesce(NEW.as_delivered, '{}') || jsonb_build_object('amount', NEW.amount::text);
        NEW.amount := NULL;
    END IF;
    IF NOT prepaid.is_bearable(NEW.occurred_at) THEN
        NEW.as_delivered := coalesce(NEW.as_delivered, '{}')
            || jsonb_build_object('occurred_at', NEW.occurred_at::text);
        NEW.occurred_at := NULL;
    END IF;
    RETURN NEW;
END $$;
-- (Before the identical record is looked for: triggers fire in the order of their names.)
CREATE TRIGGER as_delivered BEFORE INSERT ON prepaid.transactions
    FOR EACH ROW WHEN (NOT prepaid.is_bearable(NEW.amount) OR NOT prepaid.is_bearable(NEW.occurred_at))
    EXECUTE FUNCTION prepaid.keep_as_delivered();

-- Providers deliver at least once: the identical event again is dropped. So is one that a bank statement
-- has brought already, whose payment may have a longer reference now; of its time only the day counts,
-- because another file may have the hour. Two deliveries at the same moment may both land;
-- match_payments supersedes the second. The plan of the look-up is kept from the first rows, when
-- reading the whole table was cheap: by the index 20,000 records land in 0.4 s instead of 36 s.
CREATE FUNCTION prepaid.drop_identical_record() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan TO off SET plan_cache_mode TO force_generic_plan AS $$
BEGIN
    IF EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(NEW.provider_ref, 0)
          -- By the index: 25 hours are the longest day.
          AND t.occurred_at > NEW.occurred_at - interval '25 hours'
          AND t.occurred_at < NEW.occurred_at + interval '25 hours'
          AND t.provider = NEW.provider AND t.provider_ref = NEW.provider_ref
          -- Two entries of statements are two, whatever they say: that was settled before.
          AND (NEW.entry_digest IS NULL OR t.entry_digest IS NULL)
          AND (t.occurred_at = NEW.occurred_at OR NEW.entry_digest IS NULL AND t.entry_digest IS NOT NULL
               AND prepaid.business_date(t.occurred_at) = prepaid.business_date(NEW.occurred_at))
          AND t.status = NEW.status
          AND (t.invoice_number, t.amount, t.currency, t.customer_ref, t.as_delivered) IS NOT DISTINCT FROM
              (NEW.invoice_number, NEW.amount, NEW.currency, NEW.customer_ref, NEW.as_delivered)
    ) OR NEW.occurred_at IS NULL AND NEW.as_delivered IS NOT NULL AND EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(NEW.provider_ref, 0)
          AND t.occurred_at IS NULL
          AND t.provider = NEW.provider AND t.provider_ref = NEW.provider_ref AND t.status = NEW.status
          AND (t.invoice_number, t.amount, t.currency, t.customer_ref, t.as_delivered) IS NOT DISTINCT FROM
              (NEW.invoice_number, NEW.amount, NEW.currency, NEW.customer_ref, NEW.as_delivered)
    ) OR NEW.entry_digest IS NULL AND EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE hashtextextended(t.bank_ref, 0) = hashtextextended(NEW.provider_ref, 0)
          AND t.provider = NEW.provider AND t.bank_ref = NEW.provider_ref AND t.status = NEW.status
          AND prepaid.business_date(t.occurred_at) = prepaid.business_date(NEW.occurred_at)
          AND (t.invoice_number, t.amount, t.currency) IS NOT DISTINCT FROM
              (NEW.invoice_number, NEW.amount, NEW.currency)
    ) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER drop_identical_record BEFORE INSERT ON prepaid.transactions
    FOR EACH ROW EXECUTE FUNCTION prepaid.drop_identical_record();

-- A sentence of ours up to where it quotes one of the words: what a provider or a person has written
-- may be a name, and stays out of the log. The whole sentence is where it can be erased.
CREATE FUNCTION prepaid.own_words(sentence text, VARIADIC quoted text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (SELECT CASE WHEN min(place.n) > 0 THEN left(sentence, min(place.n) - 1) || '…' ELSE sentence END
     FROM unnest(quoted) q (word)
     CROSS JOIN LATERAL (SELECT nullif(position(nullif(q.word, '') IN sentence), 0) AS n) place);

CREATE FUNCTION prepaid.audit_record_outcomes() RETURNS trigger LANGUAGE plpgsql
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
CREATE TRIGGER audit_record_outcomes AFTER UPDATE ON prepaid.transactions
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_record_outcomes();
