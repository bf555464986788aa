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
    assigned_note text
);
-- Looked up by hashes: a reference may be longer than what a B-tree takes.
CREATE INDEX transactions_by_event
    ON prepaid.transactions (hashtextextended(provider_ref, 0), occurred_at);
CREATE INDEX transactions_by_invoice_number ON prepaid.transactions USING hash (invoice_number);
CREATE INDEX transactions_by_invoice ON prepaid.transactions (invoice_id);
CREATE INDEX transactions_undecided ON prepaid.transactions (transaction_id) WHERE outcome IS NULL;
-- What the monthly figures of payments taken back are made from: few of all records.
CREATE INDEX transactions_taken_back ON prepaid.transactions (occurred_at)
    WHERE status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed');

-- Any word that we do not know is Unknown: a state of its own, never guessed.
CREATE FUNCTION prepaid.record_status(status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN status IN ('Success', 'Pending', 'Failed', 'Refunded', 'Chargeback',
                         'ChargebackReversed') THEN status ELSE 'Unknown' END;

-- Providers deliver at least once: the identical event again is dropped. Two deliveries at the same
-- moment may both land; match_payments supersedes the second. The plan of the look-up is kept from the
-- first rows, when reading the whole table was cheap: by the index 20,000 records land in 0.4 s
-- instead of 36 s.
CREATE FUNCTION prepaid.drop_identical_record() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan TO off AS $$
BEGIN
    IF EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(NEW.provider_ref, 0)
          AND t.provider = NEW.provider AND t.provider_ref = NEW.provider_ref
          AND t.status = NEW.status AND t.occurred_at = NEW.occurred_at
          AND (t.invoice_number, t.amount, t.currency, t.customer_ref)
              IS NOT DISTINCT FROM (NEW.invoice_number, NEW.amount, NEW.currency, NEW.customer_ref)
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
