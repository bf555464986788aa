-- Append-only. Every change of state writes its row in the same transaction, by triggers that no
-- caller can forget. No foreign keys: the log must not depend on what it describes, and no
-- personal data: an entry can never be erased.

CREATE TABLE prepaid.audit_log (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    event text NOT NULL,
    service_plan_id bigint,
    entity text NOT NULL,
    entity_id bigint,
    before text,
    after text,
    detail text,
    actor text NOT NULL,
    run_id text,
    as_of date
);
CREATE INDEX audit_log_by_service_plan ON prepaid.audit_log (service_plan_id, audit_id);
CREATE UNIQUE INDEX audit_log_provisioned_once ON prepaid.audit_log (service_plan_id)
    WHERE event = 'service_provisioned';
-- One entry a day for a subscription whose plan cannot be opened, however often it is tried.
CREATE UNIQUE INDEX audit_log_opening_failed ON prepaid.audit_log (entity_id, as_of)
    WHERE event = 'opening_failed';

-- What gives somebody a hand in a plan (view four_eyes): few of all entries, so that a look-up per task
-- costs nothing. Plans and invoices that the pipeline opens are nobody's.
CREATE INDEX audit_log_of_hands ON prepaid.audit_log (service_plan_id)
    WHERE event IN ('hold_released', 'transaction_assigned', 'change_requested',
                    'cancellation_requested', 'invoice_void_requested', 'invoice_reissue_requested',
                    'service_plan_cancelled', 'term_cut', 'invoice_void', 'credit_note_issued');
-- Who last changed a customer, a subscription or a discount.
CREATE INDEX audit_log_of_master_data ON prepaid.audit_log (entity, entity_id, audit_id)
    WHERE service_plan_id IS NULL;
-- Holds by the day on which they were placed: few of all entries.
CREATE INDEX audit_log_of_holds ON prepaid.audit_log (as_of, at) WHERE event = 'hold_placed';

-- A person is the role that was set; current_user would be the owner inside SECURITY DEFINER.
CREATE FUNCTION prepaid.acting_person() RETURNS text LANGUAGE sql STABLE RETURN
    CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;

-- Who did it: a person under their own role, else the job that the pipeline names in prepaid.actor.
CREATE FUNCTION prepaid.actor() RETURNS text LANGUAGE sql STABLE RETURN
    CASE current_setting('role') WHEN 'none'
        THEN coalesce(nullif(current_setting('prepaid.actor', true), ''), session_user::text)
        ELSE current_setting('role') END;
CREATE FUNCTION prepaid.run_id() RETURNS text LANGUAGE sql STABLE RETURN
    nullif(current_setting('prepaid.run_id', true), '');
CREATE FUNCTION prepaid.as_of() RETURNS date LANGUAGE sql STABLE RETURN
    nullif(current_setting('prepaid.as_of', true), '')::date;
-- The business date of what is being done: the one that was given, else today where the
-- installation is (never current_date: that is the day where the session happens to be).
CREATE FUNCTION prepaid.today() RETURNS date LANGUAGE sql STABLE RETURN
    coalesce(prepaid.as_of(), prepaid.business_date(now()));

CREATE FUNCTION prepaid.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

-- Statement triggers with transition tables: one insert per statement, not one per row. Their plans
-- are kept from the first call in a session, often one of no rows at all; without nested loops such
-- a plan is still right for ten thousand (2,700 rows: 0.02 s instead of 1.4 s).
CREATE FUNCTION prepaid.audit_opened_plans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, after, detail, actor, run_id, as_of)
    SELECT 'service_plan_opened', service_plan_id, 'service_plan', service_plan_id, status, kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows WHERE origin = 'pipeline';
    RETURN NULL;
END $$;
CREATE TRIGGER audit_opened_plans AFTER INSERT ON prepaid.service_plans
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_opened_plans();

CREATE FUNCTION prepaid.audit_plan_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, actor, run_id, as_of)
    SELECT 'service_plan_' || lower(n.status), n.service_plan_id, 'service_plan',
           n.service_plan_id, o.status, n.status, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (service_plan_id) WHERE n.status <> o.status;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_plan_status AFTER UPDATE ON prepaid.service_plans
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_plan_status();

CREATE FUNCTION prepaid.audit_new_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, after, detail, actor, run_id, as_of)
    SELECT 'invoice_open', service_plan_id, 'invoice', invoice_id, status, invoice_number,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_new_invoices AFTER INSERT ON prepaid.invoices
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_new_invoices();

CREATE FUNCTION prepaid.audit_invoice_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'invoice_' || lower(n.status), n.service_plan_id, 'invoice', n.invoice_id, o.status,
           n.status, n.invoice_number, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (invoice_id) WHERE n.status <> o.status;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_invoice_status AFTER UPDATE ON prepaid.invoices
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_invoice_status();

CREATE FUNCTION prepaid.audit_new_holds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, after, actor, run_id, as_of)
    SELECT 'hold_placed', service_plan_id, 'hold', hold_id, reason_code,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_new_holds AFTER INSERT ON prepaid.holds
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_new_holds();

CREATE FUNCTION prepaid.audit_released_holds() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, actor, run_id, as_of)
    SELECT 'hold_released', n.service_plan_id, 'hold', n.hold_id, n.reason_code,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (hold_id)
    WHERE n.released_at IS NOT NULL AND o.released_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_released_holds AFTER UPDATE ON prepaid.holds
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_released_holds();

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

-- Master data: which columns changed, with values where they are prices and not personal data
-- (TG_ARGV: entity, key column, 'names' or 'values', the columns that say which of several rows).
CREATE FUNCTION prepaid.audit_master_data() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    which text;
    changed text;
BEGIN
    SELECT string_agg(k.name || ' ' || (to_jsonb(NEW) ->> k.name), ', ' ORDER BY k.place) || '; '
    INTO which
    FROM unnest(string_to_array(TG_ARGV[3], ',')) WITH ORDINALITY k (name, place);
    SELECT string_agg(n.key || CASE TG_ARGV[2] WHEN 'values'
               THEN ': ' || coalesce(o.value, 'none') || ' -> ' || coalesce(n.value, 'none')
               ELSE '' END, ', ' ORDER BY n.key)
    INTO changed
    FROM jsonb_each_text(to_jsonb(NEW)) n
    JOIN jsonb_each_text(to_jsonb(OLD)) o USING (key)
    WHERE n.value IS DISTINCT FROM o.value;
    INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
    VALUES (TG_ARGV[0] || '_changed', TG_ARGV[0], (to_jsonb(NEW) ->> TG_ARGV[1])::bigint,
            concat(which, changed),
            prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    RETURN NULL;
END $$;
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.customers
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('customer', 'customer_id', 'names');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.subscriptions
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('subscription', 'subscription_id', 'values');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.plans
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('plan', 'plan_id', 'values');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.plan_prices
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('plan_price', 'plan_id', 'values',
        'currency,valid_from');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.addons
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('addon', 'addon_id', 'values');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.addon_prices
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('addon_price', 'addon_id', 'values',
        'term_months,term_days,currency,valid_from');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.tax_rates
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('tax_rate', 'no single key', 'values',
        'country,tax_class,valid_from');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.discounts
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('discount', 'discount_id', 'values', 'discount_code');

-- What changes an amount from a day on is a row of its own: a discount, a price that takes another
-- one's place (one from the beginning is no change). TG_ARGV: entity, key column.
CREATE FUNCTION prepaid.audit_added_master_data() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
    SELECT TG_ARGV[0] || '_added', TG_ARGV[0], (added.was ->> TG_ARGV[1])::bigint,
           (SELECT string_agg(key || ': ' || value, ', ' ORDER BY key)
            FROM jsonb_each_text(jsonb_strip_nulls(added.was) - TG_ARGV[1] - 'created_at')),
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM (SELECT to_jsonb(n) AS was FROM new_rows n) added
    WHERE added.was ->> 'valid_from' IS DISTINCT FROM '1900-01-01';
    RETURN NULL;
END $$;
CREATE TRIGGER audit_added_master_data AFTER INSERT ON prepaid.plan_prices
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_added_master_data('plan_price', 'plan_id');
CREATE TRIGGER audit_added_master_data AFTER INSERT ON prepaid.addon_prices
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_added_master_data('addon_price', 'addon_id');
CREATE TRIGGER audit_added_master_data AFTER INSERT ON prepaid.discounts
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_added_master_data('discount', 'discount_id');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.installation
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('installation', 'no single key', 'values');
