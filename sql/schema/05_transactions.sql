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

-- Finance says which invoice a parked record pays. The record stays as it was delivered; who assigned
-- it is noted, and match_payments judges it anew. It may be over more than the invoice.
CREATE FUNCTION prepaid.assign_record(record bigint, to_invoice text, reason text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    paid prepaid.transactions;
    asked prepaid.invoices;
BEGIN
    IF NOT prepaid.is_in_team(person, 'finance') THEN
        RAISE EXCEPTION '% may not assign payments: only finance can', person;
    END IF;
    IF coalesce(reason, '') !~ '\S' THEN
        RAISE EXCEPTION 'assigning a payment needs a note that says why';
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
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
    ELSIF NOT coalesce(paid.amount > 0 AND paid.amount < 'Infinity', false) THEN
        RAISE EXCEPTION 'payment record % is over %: nothing that pays', record, paid.amount;
    END IF;
    UPDATE prepaid.transactions
    SET assigned_by = person, assigned_note = concat_ws(E'\n', assigned_note, reason),
        invoice_id = asked.invoice_id, outcome = NULL, outcome_reason = NULL
    WHERE transaction_id = record;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, detail, actor, run_id, as_of)
    VALUES ('transaction_assigned', asked.service_plan_id, 'transaction', record, 'parked',
            format('to invoice %s', to_invoice), person, prepaid.run_id(), prepaid.as_of());
END $$;

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
