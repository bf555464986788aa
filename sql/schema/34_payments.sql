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
    as_delivered jsonb
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
    WHERE status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed');

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

-- Amounts and times that a reader could stumble over: of more digits than any money has, of a year in
-- which nobody pays, infinite, no number. Year 10000 is none in most programs, and twice the largest
-- number is none in this one.
CREATE FUNCTION prepaid.is_bearable(amount numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(abs(amount) < 1e15 AND scale(trim_scale(amount)) <= 15, amount IS NULL);
CREATE FUNCTION prepaid.is_bearable(moment timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(moment >= '1900-01-01 00:00+00' AND moment < '2200-01-01 00:00+00', true);

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
