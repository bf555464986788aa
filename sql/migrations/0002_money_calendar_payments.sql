-- Money, calendar and payments: price lists, discounts, credit notes, changes of plan, business days in
-- the installation's time zone, records judged as a set, reminders, reversals in the reports.

DROP VIEW revenue.staged_monthly_report;
DROP VIEW prepaid.quality_checks;
DROP VIEW prepaid.payment_verifications;
DROP VIEW prepaid.ready_to_settle;
DROP VIEW prepaid.ready_to_invoice;
DROP INDEX prepaid.transactions_waiting;
DROP INDEX prepaid.transactions_one_match_per_invoice;
DROP INDEX prepaid.service_plans_to_settle;
DROP INDEX prepaid.transactions_by_event;
DROP INDEX prepaid.transactions_by_invoice_number;
DROP TRIGGER audit_master_data ON prepaid.plan_prices;
DROP TRIGGER audit_master_data ON prepaid.addon_prices;
DROP TRIGGER audit_master_data ON prepaid.tax_rates;
DROP INDEX prepaid.tasks_one_review_per_record;
DROP TRIGGER refuse_invoice_edit ON prepaid.invoices;

-- Tables that were there before.

ALTER TABLE prepaid.plan_prices
    ADD valid_from date NOT NULL DEFAULT '1900-01-01' CHECK (valid_from >= '1900-01-01'),
    ADD includes_tax boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT plan_prices_pkey,
    ADD PRIMARY KEY (plan_id, currency, valid_from);

ALTER TABLE prepaid.addon_prices
    ADD valid_from date NOT NULL DEFAULT '1900-01-01' CHECK (valid_from >= '1900-01-01'),
    ADD includes_tax boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT addon_prices_pkey,
    ADD PRIMARY KEY (addon_id, term_months, term_days, currency, valid_from);

ALTER TABLE prepaid.customers ADD tax_exempt_reason text;
ALTER TABLE prepaid.subscriptions ADD quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1);
ALTER TABLE prepaid.subscription_addons ADD quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1);

ALTER TABLE prepaid.service_plans
    ADD quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1),
    ADD price_includes_tax boolean NOT NULL DEFAULT false,
    ADD discounts jsonb,
    ADD tax_exempt_reason text,
    ADD full_end_date date,
    ADD may_reopen boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT service_plans_check,
    DROP CONSTRAINT service_plans_check1,
    DROP CONSTRAINT service_plans_check2,
    DROP CONSTRAINT service_plans_check3,
    DROP CONSTRAINT service_plans_check4,
    DROP CONSTRAINT service_plans_kind_check,
    DROP CONSTRAINT service_plans_terms_do_not_overlap,
    ADD CONSTRAINT service_plans_kind_check
        CHECK (kind IN ('new', 'renewal', 'reactivation', 'change')),
    ADD CONSTRAINT service_plans_check CHECK (end_date > start_date
        OR end_date = start_date AND status = 'Cancelled' AND full_end_date IS NOT NULL),
    ADD CONSTRAINT service_plans_check1
        CHECK (full_end_date IS NULL OR full_end_date > end_date AND activated_on IS NOT NULL),
    ADD CONSTRAINT service_plans_check2 CHECK ((term_months > 0) <> (term_days > 0)),
    ADD CONSTRAINT service_plans_check3 CHECK (status NOT IN ('Active', 'Expired')
        OR (activated_on IS NOT NULL AND net_amount IS NOT NULL AND recurring_amount IS NOT NULL)),
    ADD CONSTRAINT service_plans_check4 CHECK (settled_at IS NULL OR activated_on IS NOT NULL),
    ADD CONSTRAINT service_plans_check5 CHECK (status <> 'Processing' OR invoiced_at IS NULL),
    ADD CONSTRAINT service_plans_terms_do_not_overlap EXCLUDE USING gist (
        subscription_id WITH =, daterange(start_date, end_date) WITH &&)
        WHERE (activated_on IS NOT NULL);

-- Add-ons as they were sold so far: one of each, net.
UPDATE prepaid.service_plans p
SET addons = (SELECT jsonb_agg(a || '{"quantity": 1, "includes_tax": false}' ORDER BY n)
              FROM jsonb_array_elements(p.addons) WITH ORDINALITY e (a, n))
WHERE jsonb_array_length(p.addons) > 0;

-- Lines so far: one unit at its list price, without discount and without tax in the price.
ALTER TABLE prepaid.charges
    ADD quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1),
    ADD unit_price numeric CHECK (unit_price >= 0),
    ADD list_amount numeric,
    ADD discount numeric NOT NULL DEFAULT 0 CHECK (discount >= 0),
    ADD includes_tax boolean NOT NULL DEFAULT false,
    ADD recurring_net numeric CHECK (recurring_net >= 0);
UPDATE prepaid.charges ch
SET unit_price = ch.net, list_amount = ch.net,
    recurring_net = CASE WHEN (p.addons -> (ch.line_number - 2) ->> 'recurring') = 'false'
                              AND ch.line_number > 1 THEN 0 ELSE ch.net END
FROM prepaid.service_plans p WHERE p.service_plan_id = ch.service_plan_id;
ALTER TABLE prepaid.charges
    ALTER quantity DROP DEFAULT,
    ALTER unit_price SET NOT NULL,
    ALTER list_amount SET NOT NULL,
    ALTER discount DROP DEFAULT,
    ALTER includes_tax DROP DEFAULT,
    ALTER recurring_net SET NOT NULL,
    DROP CONSTRAINT charges_currency_fkey,
    ADD CONSTRAINT charges_check1
        CHECK (net = list_amount - discount - CASE WHEN includes_tax THEN tax ELSE 0 END);

ALTER TABLE prepaid.invoice_lines
    ADD quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1),
    ADD unit_price numeric CHECK (unit_price >= 0),
    ADD list_amount numeric,
    ADD discount numeric NOT NULL DEFAULT 0 CHECK (discount >= 0),
    ADD includes_tax boolean NOT NULL DEFAULT false;
ALTER TABLE prepaid.invoice_lines DISABLE TRIGGER invoice_lines_stay;
UPDATE prepaid.invoice_lines SET unit_price = net, list_amount = net;
ALTER TABLE prepaid.invoice_lines ENABLE TRIGGER invoice_lines_stay;
ALTER TABLE prepaid.invoice_lines
    ALTER quantity DROP DEFAULT,
    ALTER unit_price SET NOT NULL,
    ALTER list_amount SET NOT NULL,
    ALTER discount DROP DEFAULT,
    ALTER includes_tax DROP DEFAULT,
    ADD CONSTRAINT invoice_lines_check
        CHECK (net = list_amount - discount - CASE WHEN includes_tax THEN tax ELSE 0 END);

ALTER TABLE prepaid.invoices
    ADD credit numeric NOT NULL DEFAULT 0,
    ADD payable numeric NOT NULL GENERATED ALWAYS AS (total - credit) STORED,
    DROP CONSTRAINT invoices_check1,
    ADD CONSTRAINT invoices_check1 CHECK (credit >= 0 AND credit <= total),
    ADD CONSTRAINT invoices_check2 CHECK ((status = 'Paid') = (paid_on IS NOT NULL));

ALTER TABLE prepaid.transactions
    ADD credit_note_id bigint,
    ADD assigned_by text;

ALTER TABLE prepaid.emails
    ADD invoice_id bigint REFERENCES prepaid.invoices,
    DROP CONSTRAINT emails_check,
    DROP CONSTRAINT emails_status_check,
    ADD CONSTRAINT emails_status_check
        CHECK (status IN ('pending', 'sending', 'sent', 'failed', 'dropped')),
    ADD CONSTRAINT emails_check
        CHECK (status IN ('pending', 'failed', 'dropped') OR content IS NOT NULL);

ALTER TABLE revenue.plan_activations
    DROP CONSTRAINT plan_activations_kind_check,
    ADD CONSTRAINT plan_activations_kind_check
        CHECK (kind IN ('new', 'renewal', 'reactivation', 'change'));
ALTER TABLE revenue.monthly_report
    ADD changes bigint NOT NULL DEFAULT 0 CHECK (changes >= 0);
ALTER TABLE revenue.monthly_report_staging ADD changes bigint;

-- Everything else, as sql/schema has it.

-- One row: what holds for the whole installation. 'prepaid migrate' writes the time zone from
-- PREPAID_TIMEZONE, so that everybody who works with the tables counts the same days.
CREATE TABLE prepaid.installation (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    timezone text NOT NULL
);

INSERT INTO prepaid.installation (timezone) VALUES ('UTC');

-- The day that a moment belongs to, where the installation is.
CREATE FUNCTION prepaid.business_date(moment timestamptz) RETURNS date LANGUAGE sql STABLE RETURN
    (moment AT TIME ZONE (SELECT timezone FROM prepaid.installation))::date;

-- Each price with the day on which the next one takes its place: a term takes the one whose
-- [valid_from, valid_until) has the term's start.
CREATE VIEW prepaid.plan_price_periods AS
SELECT plan_id, currency, price, includes_tax, valid_from,
       lead(valid_from, 1, 'infinity') OVER (
           PARTITION BY plan_id, currency ORDER BY valid_from) AS valid_until
FROM prepaid.plan_prices;

CREATE VIEW prepaid.addon_price_periods AS
SELECT addon_id, term_months, term_days, currency, price, includes_tax, valid_from,
       lead(valid_from, 1, 'infinity') OVER (
           PARTITION BY addon_id, term_months, term_days, currency ORDER BY valid_from) AS valid_until
FROM prepaid.addon_prices;

-- What is left of an amount that contains the tax, rounded half up to the currency's decimals. In
-- whole quotients of minor units: a quotient that is rounded twice can miss half a cent.
CREATE FUNCTION prepaid.without_tax(amount numeric, rate numeric, exponent integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    round(div(2 * amount * 10::numeric ^ exponent + 1 + rate, 2 * (1 + rate)) * 10::numeric ^ -exponent,
          exponent);

-- A discount takes a percentage or an amount (of the customer's currency) off a subscription's plan
-- and recurring add-ons. terms null: for ever; n: the first n terms that start on or after starts_on
-- (null: the subscription's start); 0 ends it.
CREATE TABLE prepaid.discounts (
    discount_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    discount_code text NOT NULL,
    name text NOT NULL,
    percent numeric CHECK (percent > 0 AND percent <= 100),
    amount numeric CHECK (amount > 0 AND amount < 'Infinity'),
    terms integer CHECK (terms >= 0),
    starts_on date,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (subscription_id, discount_code),
    CHECK ((percent IS NULL) <> (amount IS NULL))
);

CREATE INDEX service_plans_to_settle ON prepaid.service_plans (service_plan_id)
    WHERE invoiced_at IS NOT NULL AND settled_at IS NULL
      AND status IN ('Pending', 'Active', 'Expired', 'Cancelled')
      AND (status <> 'Cancelled' OR activated_on IS NOT NULL);

-- Few plans are changes: the steps that ask for them need not look at each plan of a batch.
CREATE INDEX service_plans_changes ON prepaid.service_plans (service_plan_id) WHERE kind = 'change';

-- The next number of a series, for documents that are written one by one (credit notes: CN). The
-- counter's row stays locked until the caller's transaction ends, so that the next caller waits; when
-- it is rolled back, the number is free again.
CREATE FUNCTION prepaid.next_document_number(series text, issued_on date) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    issue_year integer := extract(year FROM issued_on);
    number integer;
BEGIN
    INSERT INTO prepaid.invoice_series AS s (series, year, last_number)
    VALUES (next_document_number.series, issue_year, 1)
    ON CONFLICT ON CONSTRAINT invoice_series_pkey DO UPDATE SET last_number = s.last_number + 1
    RETURNING s.last_number INTO STRICT number;
    RETURN prepaid.invoice_number(next_document_number.series, issue_year, number);
END $$;

-- When an invoice is due: it is paid in advance, so on the day on which its term was to start, or on
-- the day of issue if that is later.
CREATE FUNCTION prepaid.due_on(issued_on date, planned_start date) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN greatest(issued_on, planned_start);

-- Until when it can be paid; null: for ever. A change of plan that nobody pays must be out of the way
-- before the running term ends, so that this one is renewed: the day after the last day to pay it is
-- cancelled, the day after that the renewal is opened, also without days of grace.
CREATE FUNCTION prepaid.last_day_to_pay(due_on date, payment_days integer, running_until date) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN payment_days IS NOT NULL OR running_until IS NOT NULL
         THEN greatest(due_on, least(due_on + payment_days, running_until - 2)) END;

-- A credit note takes back a part of a term that was paid: the days that a customer who cancels at
-- once, or changes the plan mid-term, does not use. Its numbers are a series of their own (CN).
-- invoice_id is null for a term of imported history, which has no invoice.
CREATE TABLE prepaid.credit_notes (
    credit_note_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    credit_note_number text NOT NULL UNIQUE,
    service_plan_id bigint NOT NULL REFERENCES prepaid.service_plans,
    invoice_id bigint REFERENCES prepaid.invoices,
    customer_id bigint NOT NULL REFERENCES prepaid.customers,
    currency text NOT NULL REFERENCES prepaid.currencies,
    net numeric NOT NULL CHECK (net >= 0),
    tax numeric NOT NULL CHECK (tax >= 0),
    total numeric NOT NULL CHECK (total > 0),
    reason text NOT NULL CHECK (reason IN ('cancellation', 'change')),
    note text,
    -- What the credit pays (kind change); the rest of the total is to be paid back to the customer.
    applied_to_invoice_id bigint UNIQUE REFERENCES prepaid.invoices,
    applied numeric NOT NULL DEFAULT 0 CHECK (applied >= 0),
    refund numeric NOT NULL GENERATED ALWAYS AS (total - applied) STORED,
    issued_on date NOT NULL,
    issued_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (net + tax = total),
    CHECK (applied <= total),
    CHECK ((applied > 0) = (applied_to_invoice_id IS NOT NULL))
);

CREATE UNIQUE INDEX credit_notes_one_per_plan ON prepaid.credit_notes (service_plan_id);

CREATE INDEX credit_notes_by_invoice ON prepaid.credit_notes (invoice_id);

CREATE INDEX credit_notes_by_day ON prepaid.credit_notes (issued_on);

CREATE TABLE prepaid.credit_note_lines (
    credit_note_id bigint NOT NULL REFERENCES prepaid.credit_notes,
    line_number integer NOT NULL,
    description text NOT NULL,
    net numeric NOT NULL CHECK (net >= 0),
    tax_class text NOT NULL,
    tax_rate numeric CHECK (tax_rate >= 0),
    tax numeric NOT NULL CHECK (tax >= 0),
    PRIMARY KEY (credit_note_id, line_number)
);

ALTER TABLE prepaid.tasks
    ADD credit_note_id bigint REFERENCES prepaid.credit_notes,
    DROP CONSTRAINT tasks_kind_check,
    DROP CONSTRAINT tasks_check3,
    DROP CONSTRAINT tasks_check4,
    ADD CONSTRAINT tasks_kind_check CHECK (kind IN (
        'payment_verification', 'payment_review', 'payment_refund',
        'quality_check', 'quality_follow_up')),
    ADD CONSTRAINT tasks_check3 CHECK (kind <> 'payment_refund' OR credit_note_id IS NOT NULL),
    ADD CONSTRAINT tasks_check4 CHECK (kind <> 'payment_review' OR transaction_id IS NOT NULL),
    ADD CONSTRAINT tasks_check5 CHECK (kind NOT LIKE 'quality%' OR service_plan_id IS NOT NULL);

-- Looked up by hashes: a reference may be longer than what a B-tree takes.
CREATE INDEX transactions_by_event
    ON prepaid.transactions (hashtextextended(provider_ref, 0), occurred_at);

CREATE INDEX transactions_by_invoice_number ON prepaid.transactions USING hash (invoice_number);

CREATE INDEX transactions_by_invoice ON prepaid.transactions (invoice_id);

-- What the monthly figures of payments taken back are made from: few of all records.
CREATE INDEX transactions_taken_back ON prepaid.transactions (occurred_at)
    WHERE status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed');

-- Providers deliver at least once: the identical event again is dropped. Two deliveries at the same
-- moment may both land; match_payments supersedes the second. The plan of the look-up is kept from the
-- first rows, when reading the whole table was cheap: by the index 20,000 records land in 0.4 s
-- instead of 36 s.
CREATE OR REPLACE FUNCTION prepaid.drop_identical_record() RETURNS trigger LANGUAGE plpgsql
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

-- Finance says which invoice a parked record pays. The record stays as it was delivered; who assigned
-- it is noted, and match_payments judges it anew. It may be over more than the invoice.
CREATE FUNCTION prepaid.assign_record(record bigint, to_invoice text, reason text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    paid prepaid.transactions;
    asked prepaid.invoices;
BEGIN
    IF NOT pg_has_role(person, 'finance', 'USAGE') THEN
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
    SET assigned_by = person, invoice_id = asked.invoice_id, outcome = NULL, outcome_reason = NULL
    WHERE transaction_id = record;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, detail, actor, run_id, as_of)
    VALUES ('transaction_assigned', asked.service_plan_id, 'transaction', record, 'parked',
            format('to invoice %s: %s', to_invoice, reason), person, prepaid.run_id(), prepaid.as_of());
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

-- The business date of what is being done: the one that was given, else today where the
-- installation is (never current_date: that is the day where the session happens to be).
CREATE FUNCTION prepaid.today() RETURNS date LANGUAGE sql STABLE RETURN
    coalesce(prepaid.as_of(), prepaid.business_date(now()));

CREATE OR REPLACE FUNCTION prepaid.audit_record_outcomes() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'transaction_' || n.outcome, i.service_plan_id, 'transaction', n.transaction_id,
           o.outcome, n.outcome, n.outcome_reason, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (transaction_id)
    LEFT JOIN prepaid.invoices i ON i.invoice_id = n.invoice_id
    WHERE n.outcome IS DISTINCT FROM o.outcome AND n.outcome IS NOT NULL;
    RETURN NULL;
END $$;

-- Master data: which columns changed, with values where they are prices and not personal data
-- (TG_ARGV: entity, key column, 'names' or 'values', the columns that say which of several rows).
CREATE OR REPLACE FUNCTION prepaid.audit_master_data() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.plan_prices
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('plan_price', 'plan_id', 'values',
        'currency,valid_from');

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

-- What people asked for beside their tasks: to cancel, to change a plan, to void or reissue an
-- invoice; who, when and why. Rows are only ever added. The notes are here and not in the audit log,
-- which holds no personal data.

CREATE TABLE prepaid.requests (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('cancellation', 'change', 'invoice_void', 'invoice_reissue')),
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    -- The term that ends, the plan that the change opened, or the plan whose invoice it is; null when
    -- only the subscription was changed.
    service_plan_id bigint REFERENCES prepaid.service_plans,
    invoice_id bigint REFERENCES prepaid.invoices,
    asked_on date NOT NULL,
    effective_on date,
    note text NOT NULL CHECK (note ~ '\S'),
    asked_by text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- A change: what the subscription had and what it got (prepaid.subscription_state).
    before jsonb,
    after jsonb
);

CREATE INDEX requests_by_service_plan ON prepaid.requests (service_plan_id);

CREATE INDEX requests_by_subscription ON prepaid.requests (subscription_id);

CREATE TRIGGER requests_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.requests
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

CREATE FUNCTION prepaid.audit_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, after, actor, run_id, as_of)
    VALUES (NEW.kind || '_requested', NEW.service_plan_id, 'request', NEW.request_id,
            NEW.effective_on::text, prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    RETURN NULL;
END $$;

CREATE TRIGGER audit_request AFTER INSERT ON prepaid.requests
    FOR EACH ROW EXECUTE FUNCTION prepaid.audit_request();

-- The acting person, if that person is in one of the teams and says why; the audit log then names
-- them, also in a session of their own, where prepaid.actor could say anything.
CREATE FUNCTION prepaid.person_in(teams text[], what text, why text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    person text := prepaid.acting_person();
BEGIN
    IF NOT EXISTS (SELECT FROM unnest(teams) team WHERE pg_has_role(person, team, 'USAGE')) THEN
        RAISE EXCEPTION '% may not %: not in %', person, what, array_to_string(teams, ' or ');
    END IF;
    IF coalesce(why, '') !~ '\S' THEN
        RAISE EXCEPTION 'to % needs a note that says why', what;
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    RETURN person;
END $$;

CREATE UNIQUE INDEX tasks_one_review_per_record ON prepaid.tasks (transaction_id)
    WHERE kind = 'payment_review' AND status = 'Open';

CREATE INDEX tasks_reviews ON prepaid.tasks (transaction_id) WHERE kind = 'payment_review';

-- A plan that is cancelled before activation takes what hangs on it along: nobody is asked to pay or
-- to verify any more, and money that has arrived for it goes to finance as a task.
CREATE OR REPLACE FUNCTION prepaid.close_cancelled_plan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM prepaid.void_open_invoice(NEW.service_plan_id);
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = NEW.service_plan_id AND released_at IS NULL;
    IF NEW.kind = 'change' THEN
        PERFORM prepaid.take_back_change(NEW.service_plan_id);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION prepaid.check_invoice_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'Open' AND NEW.status = 'Void' THEN
        RETURN NEW;
    END IF;
    IF OLD.status = 'Paid' AND NEW.status = 'Open' THEN
        PERFORM FROM prepaid.transactions t
        WHERE t.invoice_id = NEW.invoice_id AND t.status = 'Success' AND t.outcome <> 'matched';
        IF FOUND AND NEW.transaction_id IS NULL THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'invoice % stays Paid: its payment stands', NEW.invoice_number;
    END IF;
    IF NOT (OLD.status = 'Open' AND NEW.status = 'Paid') THEN
        RAISE EXCEPTION 'invoice % cannot go from % to %', NEW.invoice_number, OLD.status, NEW.status;
    END IF;
    -- A full discount or a credit leaves nothing to pay, so nothing to verify. (The column payable is
    -- not computed yet in a BEFORE trigger.)
    IF NEW.total - NEW.credit = 0 THEN
        RETURN NEW;
    END IF;
    PERFORM FROM prepaid.transactions t
    WHERE t.invoice_id = NEW.invoice_id AND t.outcome = 'matched'
    HAVING bool_and(t.status = 'Success' AND t.currency = NEW.currency)
       AND bool_or(t.transaction_id = NEW.transaction_id)
       AND (sum(t.amount) = NEW.total - NEW.credit
            OR sum(t.amount) > NEW.total - NEW.credit AND bool_and(t.assigned_by IS NOT NULL));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invoice % cannot be Paid: no matched payment record of % %',
            NEW.invoice_number, NEW.total - NEW.credit, NEW.currency;
    END IF;
    -- FOR SHARE: a rejection at this very moment waits, and is refused once the invoice is Paid.
    PERFORM FROM prepaid.tasks k
    WHERE k.invoice_id = NEW.invoice_id AND k.kind = 'payment_verification'
      AND k.status = 'Done' AND k.decision = 'approved'
    FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invoice % cannot be Paid: no finance officer has approved its payment',
            NEW.invoice_number;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER refuse_invoice_edit BEFORE UPDATE ON prepaid.invoices
    FOR EACH ROW WHEN ((OLD.invoice_number, OLD.service_plan_id, OLD.customer_id, OLD.currency,
                        OLD.net, OLD.tax, OLD.total, OLD.credit, OLD.issued_on)
        IS DISTINCT FROM (NEW.invoice_number, NEW.service_plan_id, NEW.customer_id, NEW.currency,
                          NEW.net, NEW.tax, NEW.total, NEW.credit, NEW.issued_on))
    EXECUTE FUNCTION prepaid.refuse_invoice_edit();

CREATE TRIGGER credit_notes_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.credit_notes
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

CREATE TRIGGER credit_note_lines_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.credit_note_lines
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

CREATE OR REPLACE FUNCTION prepaid.audit_email_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'email_' || n.status, n.service_plan_id, 'email', n.email_id, o.status, n.status,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.status <> o.status
      AND (n.status IN ('sent', 'failed', 'dropped') OR o.status = 'failed');
    RETURN NULL;
END $$;

-- Sends failed mails again under the acting person's name, all or nothing: what was written is sent
-- as it was, the same bytes with the same Message-ID. Returns how many.
CREATE FUNCTION prepaid.resend_emails(email_ids bigint[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    resent integer;
    refused record;
BEGIN
    IF NOT (pg_has_role(person, 'customer_success', 'USAGE')
            OR pg_has_role(person, 'engineering', 'USAGE')) THEN
        RAISE EXCEPTION '% may not send mails again: not in customer_success or engineering', person;
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM FROM prepaid.emails e WHERE e.email_id = ANY (email_ids) ORDER BY e.email_id FOR UPDATE;
    SELECT asked.email_id, e.status INTO refused
    FROM unnest(email_ids) asked (email_id)
    LEFT JOIN prepaid.emails e USING (email_id)
    WHERE e.status IS DISTINCT FROM 'failed' ORDER BY asked.email_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'mail % cannot be sent again: %', refused.email_id,
            coalesce('only failed ones can, and it is ' || refused.status, 'there is no such mail');
    END IF;
    UPDATE prepaid.emails e
    SET status = 'pending', attempts = 0, next_attempt_at = clock_timestamp()
    WHERE e.email_id = ANY (email_ids);
    GET DIAGNOSTICS resent = ROW_COUNT;
    RETURN resent;
END $$;

-- Which plans wait for the pipeline. Claims and sensors read the same views, so that a sensor never
-- asks for a run that would find nothing, and never misses one.

-- Steps 1-5. Whether the plan is due (lead days before its start) depends on the business date.
CREATE VIEW prepaid.ready_to_invoice AS
SELECT p.service_plan_id, p.planned_start, p.term_days, p.batch_id
FROM prepaid.service_plans p
WHERE p.invoiced_at IS NULL AND p.status IN ('Pending', 'Processing')
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = p.batch_id AND b.leased_until > clock_timestamp())
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL);

-- Steps 6-11: invoiced, the record matched and the payment approved (or nothing to pay). A plan whose
-- payment was taken back after activation comes here again when it is paid again.
CREATE VIEW prepaid.ready_to_settle AS
SELECT p.service_plan_id, p.batch_id
FROM prepaid.service_plans p
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.invoiced_at IS NOT NULL AND p.settled_at IS NULL
  AND p.status IN ('Pending', 'Active', 'Expired', 'Cancelled')
  AND (p.status <> 'Cancelled' OR p.activated_on IS NOT NULL)
  AND (p.status <> 'Cancelled' OR i.status = 'Open')
  AND (i.status = 'Paid' OR i.payable = 0 OR (
      -- What has landed and is not judged yet may say that the money was taken back. NOT IN, because
      -- these few are then read once and not for each plan.
      i.invoice_number NOT IN (SELECT landed.invoice_number FROM prepaid.transactions landed
                               WHERE landed.outcome IS NULL AND landed.invoice_number IS NOT NULL)
      AND EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched'
                    AND (coalesce(t.provider, ''), coalesce(t.provider_ref, '')) NOT IN (
                        SELECT landed.provider, landed.provider_ref FROM prepaid.transactions landed
                        WHERE landed.outcome IS NULL
                          AND landed.provider IS NOT NULL AND landed.provider_ref IS NOT NULL))
      AND EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
                    AND k.status <> 'Withdrawn' AND k.decision = 'approved')))
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = p.batch_id AND b.leased_until > clock_timestamp())
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL);

-- Invoices that nobody has begun to pay, so that the customer is reminded and at last the plan is
-- cancelled. Not while anything about the payment is in our own hands: the plan held, a record that
-- matches, waits or was not judged yet, a question to finance, or an approval that came first.
CREATE VIEW prepaid.unpaid_invoices AS
SELECT i.invoice_id, i.invoice_number, p.service_plan_id, p.email,
       prepaid.due_on(i.issued_on, p.planned_start) AS due_on, running.end_date AS running_until
FROM prepaid.service_plans p
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Open'
LEFT JOIN prepaid.service_plans running
    ON running.service_plan_id = p.previous_plan_id AND p.kind = 'change'
WHERE p.status = 'Pending' AND p.invoiced_at IS NOT NULL AND p.settled_at IS NULL
  AND i.payable > 0
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched')
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_number = i.invoice_number
                    AND (t.outcome IS NULL OR t.outcome = 'waiting'))
  -- Assigned to it by a person, whatever number the record has.
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.service_plan_id = p.service_plan_id AND k.invoice_id = i.invoice_id
                    AND (k.kind = 'payment_review' AND k.status = 'Open'
                      OR k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
                        AND k.decision = 'approved'));

-- Releases every live hold of a plan under the acting person's name; the plan goes on where it was.
-- A released rejection opens a new verification task on the same invoice. Returns the holds released.
CREATE OR REPLACE FUNCTION prepaid.release_holds(plan bigint, release_note text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    released integer;
    rejected boolean;
BEGIN
    IF NOT (pg_has_role(person, 'finance', 'USAGE') OR pg_has_role(person, 'customer_success', 'USAGE')
            OR pg_has_role(person, 'engineering', 'USAGE')) THEN
        RAISE EXCEPTION '% may not release holds: not in finance, customer_success or engineering', person;
    END IF;
    IF coalesce(release_note, '') !~ '\S' THEN
        RAISE EXCEPTION 'releasing a hold needs a note that says what was done';
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    -- What was released is asked of the release itself: a rejection at this very moment is either
    -- among it or stays a hold.
    WITH freed AS (
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = release_note
        WHERE h.service_plan_id = plan AND h.released_at IS NULL
        RETURNING h.reason_code
    )
    SELECT count(*), bool_or(reason_code = 'payment_rejected') INTO released, rejected FROM freed;
    IF released = 0 THEN
        RAISE EXCEPTION 'service plan % is not held', plan;
    END IF;
    IF rejected AND NOT pg_has_role(person, 'finance', 'USAGE') THEN
        RAISE EXCEPTION '% may not release a rejected payment: only finance can', person;
    END IF;
    IF rejected THEN
        UPDATE prepaid.tasks k SET status = 'Withdrawn'
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND k.invoice_id = i.invoice_id
          AND k.kind = 'payment_verification' AND k.decision = 'rejected';
        INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on)
        SELECT 'payment_verification', plan, i.invoice_id, 'finance',
               prepaid.today()
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND i.payable > 0
          AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn');
    END IF;
    RETURN released;
END $$;

-- What a finance officer needs to decide: the invoice, the provider's record beside it, and in words
-- what differs. Of a payment in parts the last record is shown, with the amount of all.
-- UPDATE … SET decision = 'approved' | 'rejected', note = '…' WHERE task_id = …
CREATE VIEW prepaid.payment_verifications AS
SELECT k.task_id, k.status, k.opened_on, i.invoice_number, p.service_plan_id,
       c.customer_ref, p.customer_name, p.plan_name, p.kind, i.currency, i.net, i.tax, i.total, i.payable,
       r.provider AS record_provider, r.provider_ref AS record_ref, r.status AS record_status,
       coalesce(matched.amount, r.amount) AS record_amount, r.currency AS record_currency,
       r.occurred_at AS record_at, coalesce(matched.records, 0) AS matched_records,
       d.difference IS NULL AS agrees, d.difference,
       k.decision, k.note, k.decided_by, k.decided_at
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
    SELECT t.* FROM prepaid.transactions t
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
            THEN format('the record is over %s, the invoice over %s', coalesce(r.amount::text, 'nothing'), i.payable)
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
                AND t.status IS DISTINCT FROM 'Success' AND t.occurred_at >= m.occurred_at
              ORDER BY t.occurred_at DESC LIMIT 1)
    END AS difference
) d
WHERE k.kind = 'payment_verification' AND k.status <> 'Withdrawn';

-- Which open invoices a parked payment may be meant for. A help for finance; nothing acts on it. By the
-- customer or by the number: never by the amount alone, which many invoices share.
CREATE VIEW prepaid.payment_suggestions AS
WITH parked AS (
    SELECT t.* FROM prepaid.tasks k JOIN prepaid.transactions t USING (transaction_id)
    WHERE k.kind = 'payment_review' AND k.status = 'Open' AND t.outcome = 'parked'
      AND t.status = 'Success'
), candidates AS (
    SELECT t.transaction_id, i.invoice_id, NULL AS slip
    FROM parked t
    JOIN prepaid.customers c USING (customer_ref)
    JOIN prepaid.invoices i ON i.customer_id = c.customer_id AND i.status = 'Open'
    UNION ALL
    SELECT t.transaction_id, i.invoice_id, meant.slip
    FROM parked t
    CROSS JOIN LATERAL prepaid.meant_numbers(t.invoice_number) meant
    JOIN prepaid.invoices i ON prepaid.plain_number(i.invoice_number) = meant.plain AND i.status = 'Open'
)
SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number AS record_invoice_number,
       t.amount, t.currency, t.customer_ref AS record_customer_ref, t.occurred_at, t.outcome_reason,
       i.invoice_number, i.service_plan_id, c.customer_ref, c.name AS customer_name, i.issued_on,
       concat_ws('; ', 'same amount', CASE WHEN t.customer_ref = c.customer_ref THEN 'same customer' END,
                 'the number: ' || found.slip) AS because
FROM (SELECT transaction_id, invoice_id, max(slip) AS slip FROM candidates GROUP BY 1, 2) found
JOIN parked t USING (transaction_id)
JOIN prepaid.invoices i ON i.invoice_id = found.invoice_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
WHERE i.payable = t.amount AND i.currency = t.currency
  AND i.invoice_number IS DISTINCT FROM t.invoice_number
  AND NOT EXISTS (SELECT FROM prepaid.transactions m
                  WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched');

-- What customer success needs: the plan's features to look at.
-- UPDATE … SET decision = 'passed' | 'failed', note = '…' WHERE task_id = …
CREATE VIEW prepaid.quality_checks AS
SELECT k.task_id, k.kind, k.status, k.opened_on, p.service_plan_id, c.customer_ref, p.customer_name,
       p.plan_name, p.start_date, p.end_date,
       concat_ws(', ', CASE WHEN p.quantity > 1 THEN p.quantity || ' × ' ELSE '' END || p.plan_name, (
           SELECT string_agg(CASE WHEN (a ->> 'quantity')::integer > 1
                                  THEN a ->> 'quantity' || ' × ' ELSE '' END || (a ->> 'name'),
                             ', ' ORDER BY n)
           FROM jsonb_array_elements(p.addons) WITH ORDINALITY e (a, n))) AS features,
       earlier.note AS what_failed,
       k.decision, k.note, k.decided_by, k.decided_at
FROM prepaid.tasks k
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.tasks earlier ON earlier.task_id = k.parent_task_id
WHERE k.kind IN ('quality_check', 'quality_follow_up') AND k.status <> 'Withdrawn';

CREATE TRIGGER decide INSTEAD OF UPDATE ON prepaid.payment_verifications
    FOR EACH ROW EXECUTE FUNCTION prepaid.decide_from_view();

CREATE TRIGGER decide INSTEAD OF UPDATE ON prepaid.quality_checks
    FOR EACH ROW EXECUTE FUNCTION prepaid.decide_from_view();

-- Leaving: at the end of the term, or at once with credit for the days that are not used.

CREATE FUNCTION prepaid.audit_cut_term() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, actor, run_id, as_of)
    VALUES ('term_cut', NEW.service_plan_id, 'term', NEW.service_plan_id, OLD.end_date::text,
            NEW.end_date::text, prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    RETURN NULL;
END $$;

CREATE TRIGGER audit_cut_term AFTER UPDATE ON prepaid.service_plans
    FOR EACH ROW WHEN (OLD.full_end_date IS DISTINCT FROM NEW.full_end_date)
    EXECUTE FUNCTION prepaid.audit_cut_term();

-- Cancels a plan that was not activated yet. A trigger voids its open invoice and parks money that
-- was matched to it; an invoice that is paid already is credited in full. (Its own credit, from a
-- change of plan that now never happens, is no money that came from the customer.)
CREATE FUNCTION prepaid.cancel_waiting_plan(plan bigint, remark text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    note_id bigint;
BEGIN
    SELECT prepaid.issue_credit_note(plan, p.start_date, prepaid.today(), 'cancellation', remark,
                                     i.invoice_id, i.credit)
    INTO note_id
    FROM prepaid.service_plans p JOIN prepaid.invoices i USING (service_plan_id)
    WHERE p.service_plan_id = plan AND i.status = 'Paid';
    UPDATE prepaid.service_plans
    SET status = 'Cancelled', batch_id = NULL,
        may_reopen = opened_on IS NOT NULL AND kind <> 'change'
    WHERE service_plan_id = plan;
    RETURN note_id;
END $$;

-- Ends an Active term on a day inside it, or before its first one. What was paid is credited by days;
-- an invoice that is open again (the payment was taken back) is void, and nothing is paid back.
CREATE FUNCTION prepaid.cut_active_term(plan bigint, cut_on date, remark text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    note_id bigint := prepaid.issue_credit_note(plan, cut_on, prepaid.today(), 'cancellation', remark);
BEGIN
    UPDATE prepaid.service_plans
    SET full_end_date = coalesce(full_end_date, end_date), end_date = cut_on, status = 'Cancelled',
        batch_id = NULL
    WHERE service_plan_id = plan;
    IF EXISTS (SELECT FROM prepaid.invoices WHERE service_plan_id = plan AND status = 'Open') THEN
        PERFORM prepaid.void_open_invoice(plan);
    END IF;
    -- Nobody needs to look at its features any more.
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = plan AND kind IN ('quality_check', 'quality_follow_up') AND status = 'Open';
    UPDATE prepaid.tasks SET closed_at = clock_timestamp()
    WHERE service_plan_id = plan AND kind IN ('quality_check', 'quality_follow_up')
      AND status = 'Done' AND closed_at IS NULL;
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = plan AND released_at IS NULL;
    RETURN note_id;
END $$;

CREATE FUNCTION prepaid.order_cancellation_mail(plan bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient)
    SELECT p.service_plan_id, 'cancellation_confirmation', CASE p.status
        WHEN 'Cancelled' THEN 'at_once' ELSE 'end_of_term' END, to_whom.address
    FROM prepaid.service_plans p JOIN prepaid.customers c USING (customer_id)
    CROSS JOIN LATERAL (SELECT coalesce(nullif(btrim(c.email), ''), p.email) AS address) to_whom
    WHERE p.service_plan_id = plan AND to_whom.address IS NOT NULL
    ON CONFLICT (service_plan_id, template, occasion) DO NOTHING;
$$;

-- Raises when the money behind running terms is not all there: what it would pay back (or pay the next
-- term with) was taken back, or a record that may say so is not judged. An invoice that a change paid
-- with credit is as good as the invoices the credit comes from.
CREATE FUNCTION prepaid.require_standing_payments(plans bigint[]) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    unjudged text;
    doubtful record;
BEGIN
    WITH RECURSIVE grounds AS (
        SELECT i.invoice_id FROM prepaid.invoices i
        WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void'
        UNION
        SELECT n.invoice_id FROM grounds g JOIN prepaid.credit_notes n ON n.applied_to_invoice_id = g.invoice_id
        WHERE n.invoice_id IS NOT NULL
    )
    SELECT min(i.invoice_number) INTO unjudged
    FROM grounds JOIN prepaid.invoices i USING (invoice_id)
    WHERE EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE t.outcome IS NULL AND (t.invoice_number = i.invoice_number OR t.invoice_id = i.invoice_id
            OR EXISTS (SELECT FROM prepaid.transactions m
                       WHERE m.invoice_id = i.invoice_id AND m.provider = t.provider
                         AND m.provider_ref = t.provider_ref)));
    IF unjudged IS NOT NULL THEN
        RAISE EXCEPTION 'payment records of invoice % are not judged yet: run ''prepaid drain'' or wait a '
            'minute', unjudged;
    END IF;

    WITH RECURSIVE grounds AS (
        SELECT i.invoice_id, p.service_plan_id, p.end_date, false AS earlier
        FROM prepaid.invoices i JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void'
        UNION
        SELECT n.invoice_id, g.service_plan_id, g.end_date, true
        FROM grounds g JOIN prepaid.credit_notes n ON n.applied_to_invoice_id = g.invoice_id
        WHERE n.invoice_id IS NOT NULL
    )
    SELECT g.*, i.invoice_number, i.status, i.credit, i.currency INTO doubtful
    FROM grounds g JOIN prepaid.invoices i USING (invoice_id)
    WHERE i.status <> 'Paid' AND (g.earlier OR i.credit > 0)
    ORDER BY g.service_plan_id, g.earlier DESC, g.invoice_id LIMIT 1;
    IF doubtful.earlier THEN
        RAISE EXCEPTION 'service plan % was paid with credit of invoice %, whose payment was taken back: '
            '%wait for the end of the term, %', doubtful.service_plan_id, doubtful.invoice_number,
            CASE doubtful.status WHEN 'Open' THEN 'have it paid anew first, or ' ELSE '' END,
            doubtful.end_date;
    ELSIF NOT doubtful.earlier THEN
        RAISE EXCEPTION 'the payment of invoice % was taken back, and its credit of % % would be lost: '
            'have it paid anew first, or wait for the end of the term, %', doubtful.invoice_number,
            doubtful.credit, doubtful.currency, doubtful.end_date;
    END IF;
END $$;

-- Cancels a subscription, or one plan of it, for the person who is acting (customer_success, finance).
-- Returns what happened to each plan: it ends, ended or never begins; on which day; the credit note.
CREATE FUNCTION prepaid.cancel(
    subscription bigint, plan bigint, at_once boolean, on_date date, why text
) RETURNS TABLE (service_plan_id bigint, outcome text, ends_on date, credit_note_number text,
                 currency text, credited numeric, refund numeric)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
#variable_conflict use_column
DECLARE
    person text := prepaid.person_in(ARRAY['customer_success', 'finance'], 'cancel plans', why);
    today date := prepaid.today();
    s record;
    named record;
    last record;
    term record;
    leaves date;
    earliest date;
    touched bigint[] := '{}';
    main bigint;
    unpaid text;
BEGIN
    -- Records must not be matched to what is being cancelled; then the plans, the later ones first:
    -- step 8 holds a change of plan before it cuts the term before.
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
    SELECT * INTO STRICT s FROM prepaid.subscriptions WHERE subscription_id = subscription FOR NO KEY UPDATE;
    PERFORM FROM prepaid.service_plans p WHERE p.subscription_id = subscription
    ORDER BY p.service_plan_id DESC FOR NO KEY UPDATE;
    SELECT p.* INTO named FROM prepaid.service_plans p WHERE p.service_plan_id = plan;
    SELECT p.* INTO last FROM prepaid.service_plans p
    WHERE p.subscription_id = subscription AND p.activated_on IS NOT NULL
    ORDER BY p.end_date DESC, p.start_date DESC LIMIT 1;

    IF named.status IN ('Expired', 'Cancelled') THEN
        SELECT i.invoice_number INTO unpaid FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open';
        RAISE EXCEPTION 'service plan % is % already%', plan, named.status, CASE
            WHEN unpaid IS NULL THEN ''
            ELSE format('; its invoice %s is open: a new payment, or finance voids it (prepaid invoices '
                        'void)', unpaid) END;
    ELSIF named.status IN ('Pending', 'Processing') THEN
        -- Taking back a change leaves the subscription as it was before it.
        leaves := CASE WHEN named.kind <> 'change' THEN coalesce(last.end_date, named.planned_start) END;
        touched := ARRAY[plan];
        main := plan;
    ELSE
        IF at_once AND on_date > today THEN
            RAISE EXCEPTION '% has not come yet: cancel on that day, or at the end of the term', on_date;
        ELSIF at_once THEN
            -- A term that a change has cut ends where it ends; its other days are credited already.
            SELECT coalesce(array_agg(p.service_plan_id ORDER BY p.start_date)
                                FILTER (WHERE p.full_end_date IS NULL), '{}'),
                   min(p.start_date) FILTER (WHERE p.full_end_date IS NULL), min(p.start_date)
            INTO touched, leaves, earliest
            FROM prepaid.service_plans p
            WHERE p.subscription_id = subscription AND p.end_date > coalesce(on_date, today)
              AND (p.status = 'Active' OR p.status = 'Expired' AND p.full_end_date IS NOT NULL)
              AND (plan IS NULL OR p.start_date >= named.start_date);
            IF on_date < earliest THEN
                RAISE EXCEPTION 'the term starts on %: it can be cancelled from that day on', earliest;
            END IF;
            PERFORM prepaid.require_standing_payments(touched);
            leaves := greatest(leaves, CASE WHEN leaves IS NOT NULL THEN coalesce(on_date, today) END);
        ELSIF last.service_plan_id <> plan THEN
            RAISE EXCEPTION 'service plan % is followed by service plan % (% to %), which is paid: '
                'cancel that one at once, or the subscription',
                plan, last.service_plan_id, last.start_date, last.end_date;
        END IF;
        touched := touched || ARRAY(
            SELECT p.service_plan_id FROM prepaid.service_plans p
            WHERE p.subscription_id = subscription AND p.status IN ('Pending', 'Processing')
            ORDER BY p.start_date);
        leaves := coalesce(leaves, last.end_date, (
            SELECT min(p.planned_start) FROM prepaid.service_plans p
            WHERE p.service_plan_id = ANY (touched)), s.started_on);
        main := CASE WHEN leaves = last.end_date THEN last.service_plan_id ELSE touched[1] END;
        IF cardinality(touched) = 0 AND s.cancelled_on <= leaves THEN
            RAISE EXCEPTION 'subscription % is cancelled already, as of %',
                s.subscription_ref, s.cancelled_on;
        END IF;
    END IF;

    INSERT INTO prepaid.requests (kind, subscription_id, service_plan_id, asked_on, effective_on, note, asked_by)
    VALUES ('cancellation', subscription, main, today, leaves, why, person);
    UPDATE prepaid.subscriptions SET cancelled_on = least(cancelled_on, leaves)
    WHERE subscription_id = subscription AND least(cancelled_on, leaves) IS DISTINCT FROM cancelled_on;

    FOR term IN SELECT p.* FROM prepaid.service_plans p WHERE p.service_plan_id = ANY (touched)
                ORDER BY p.start_date LOOP
        IF term.status = 'Active' THEN
            PERFORM prepaid.cut_active_term(term.service_plan_id, greatest(term.start_date, leaves), why);
            PERFORM prepaid.order_cancellation_mail(term.service_plan_id);
        ELSE
            PERFORM prepaid.cancel_waiting_plan(term.service_plan_id, why);
        END IF;
    END LOOP;
    IF main <> ALL (touched) AND last.status = 'Active' AND last.end_date > today THEN
        PERFORM prepaid.order_cancellation_mail(main);
    END IF;

    RETURN QUERY
    SELECT p.service_plan_id, CASE WHEN p.status <> 'Cancelled' THEN 'ends'
               WHEN p.activated_on IS NOT NULL THEN 'ended' ELSE 'never begins' END,
           CASE WHEN p.activated_on IS NOT NULL THEN p.end_date END, n.credit_note_number, p.currency,
           n.total, n.refund
    FROM prepaid.service_plans p LEFT JOIN prepaid.credit_notes n USING (service_plan_id)
    WHERE p.service_plan_id = ANY (main || touched) ORDER BY p.start_date, p.service_plan_id;
END $$;

-- Another plan, price or add-ons: at the next renewal, or in the middle of the running term.

-- What a change changes and gives back: plan, own price and add-ons.
CREATE FUNCTION prepaid.subscription_state(subscription bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('plan_id', s.plan_id, 'price', s.price, 'addons', coalesce(
        (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.addon_id) FROM prepaid.subscription_addons a
         WHERE a.subscription_id = subscription), '[]'))
    FROM prepaid.subscriptions s WHERE s.subscription_id = subscription;
$$;

CREATE FUNCTION prepaid.set_subscription_state(subscription bigint, state jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    before text := prepaid.addon_codes(subscription);
BEGIN
    UPDATE prepaid.subscriptions SET plan_id = (state ->> 'plan_id')::bigint,
        price = (state ->> 'price')::numeric
    WHERE subscription_id = subscription;
    DELETE FROM prepaid.subscription_addons a
    WHERE a.subscription_id = subscription AND NOT EXISTS (
        SELECT FROM jsonb_array_elements(state -> 'addons') e WHERE (e ->> 'addon_id')::bigint = a.addon_id);
    INSERT INTO prepaid.subscription_addons
    SELECT r.* FROM jsonb_array_elements(state -> 'addons') e
    CROSS JOIN LATERAL jsonb_populate_record(NULL::prepaid.subscription_addons, e) r
    ON CONFLICT DO NOTHING;
    -- The table of add-ons has no audit trigger of its own: the change belongs to the subscription.
    IF before <> prepaid.addon_codes(subscription) THEN
        INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
        VALUES ('subscription_changed', 'subscription', subscription,
                format('addons: %s -> %s', before, prepaid.addon_codes(subscription)),
                prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    END IF;
END $$;

CREATE FUNCTION prepaid.addon_codes(subscription bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(string_agg(a.addon_code, ';' ORDER BY a.addon_code), 'none')
    FROM prepaid.subscription_addons JOIN prepaid.addons a USING (addon_id)
    WHERE subscription_id = subscription;
$$;

-- A change of plan that was cancelled before it began: the subscription gets back what it had, unless
-- somebody has given it something else since.
CREATE FUNCTION prepaid.take_back_change(plan bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    asked record;
BEGIN
    SELECT * INTO asked FROM prepaid.requests WHERE service_plan_id = plan AND kind = 'change'
    ORDER BY request_id DESC LIMIT 1;
    IF prepaid.subscription_state(asked.subscription_id) = asked.after THEN
        PERFORM prepaid.set_subscription_state(asked.subscription_id, asked.before);
    END IF;
END $$;

-- The state that is asked for. Raises what cannot be sold: a plan or add-on that does not exist, or
-- has no price in the customer's currency for that term.
CREATE FUNCTION prepaid.asked_state(
    subscription bigint, new_plan text, new_price numeric, new_addons text[], starts date
) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    s record;
    l record;
    own_price numeric;
    bad text;
    addons jsonb;
BEGIN
    SELECT sub.*, c.currency, m.exponent INTO STRICT s
    FROM prepaid.subscriptions sub JOIN prepaid.customers c USING (customer_id)
    JOIN prepaid.currencies m USING (currency)
    WHERE sub.subscription_id = subscription;
    SELECT * INTO l FROM prepaid.plans WHERE plan_code = new_plan;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no plan %', new_plan;
    END IF;
    -- The own price was agreed for the plan of now; another plan comes at its list price.
    own_price := coalesce(new_price, CASE WHEN l.plan_id = s.plan_id THEN s.price END);
    IF own_price < 0 OR own_price >= 'Infinity' OR own_price <> round(own_price, s.exponent) THEN
        RAISE EXCEPTION 'the price % is none in %: expected 0 or more with at most % decimals',
            own_price, s.currency, s.exponent;
    ELSIF own_price IS NULL AND NOT EXISTS (
        SELECT FROM prepaid.plan_price_periods WHERE plan_id = l.plan_id AND currency = s.currency
          AND price IS NOT NULL AND starts >= valid_from AND starts < valid_until) THEN
        RAISE EXCEPTION 'plan % has no price in % on %: name one with --price, or import plans.csv',
            new_plan, s.currency, starts;
    END IF;
    SELECT string_agg(DISTINCT code, ', ') INTO bad FROM unnest(new_addons) code
    WHERE NOT EXISTS (SELECT FROM prepaid.addons a WHERE a.addon_code = code);
    IF bad IS NOT NULL THEN
        RAISE EXCEPTION 'there is no add-on %', bad;
    END IF;
    -- An add-on that stays keeps its row, with the quantity that it has.
    SELECT coalesce(jsonb_agg(coalesce(to_jsonb(known), jsonb_build_object(
               'subscription_id', subscription, 'addon_id', a.addon_id, 'quantity', 1)) ORDER BY a.addon_id), '[]'),
           string_agg(a.addon_code, ', ' ORDER BY a.addon_code) FILTER (
               WHERE a.recurring AND NOT EXISTS (
                   SELECT FROM prepaid.addon_price_periods ap
                   WHERE ap.addon_id = a.addon_id AND ap.currency = s.currency
                     AND ap.term_months = l.term_months AND ap.term_days = l.term_days
                     AND starts >= ap.valid_from AND starts < ap.valid_until))
    INTO addons, bad
    FROM prepaid.addons a
    LEFT JOIN prepaid.subscription_addons known
        ON known.addon_id = a.addon_id AND known.subscription_id = subscription
    WHERE CASE WHEN new_addons IS NULL THEN known.addon_id IS NOT NULL
          ELSE a.addon_code = ANY (new_addons) END;
    IF bad IS NOT NULL THEN
        RAISE EXCEPTION 'no price in % for a term of plan %: add-on %; leave it out with --addons, or '
            'import addons.csv', s.currency, new_plan, bad;
    END IF;
    RETURN jsonb_build_object('plan_id', l.plan_id, 'price', own_price, 'addons', addons);
END $$;

-- Changes the plan of a subscription for the person who is acting (customer_success, finance): at the
-- next renewal (on_date null), or on a day inside the running term. Then a plan of kind change is
-- opened; when it is paid, step 8 cuts the running term where it starts. Returns the plan that was
-- opened, or the waiting renewal that the change meets.
CREATE FUNCTION prepaid.change_plan(
    subscription bigint, new_plan text, new_price numeric, new_addons text[], on_date date, why text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_in(ARRAY['customer_success', 'finance'], 'change plans', why);
    today date := prepaid.today();
    s record;
    running record;
    waiting record;
    later record;
    before jsonb;
    after jsonb;
    opened bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
    SELECT sub.*, c.currency INTO STRICT s
    FROM prepaid.subscriptions sub JOIN prepaid.customers c USING (customer_id)
    WHERE sub.subscription_id = subscription FOR NO KEY UPDATE OF sub;
    PERFORM FROM prepaid.service_plans p WHERE p.subscription_id = subscription
    ORDER BY p.service_plan_id DESC FOR NO KEY UPDATE;
    SELECT p.* INTO waiting FROM prepaid.service_plans p
    WHERE p.subscription_id = subscription AND p.status IN ('Pending', 'Processing')
    ORDER BY p.kind = 'change' DESC, p.service_plan_id DESC LIMIT 1;
    SELECT p.* INTO running FROM prepaid.service_plans p
    WHERE p.subscription_id = subscription AND p.status = 'Active'
      AND p.start_date <= coalesce(on_date, today) AND p.end_date > coalesce(on_date, today);
    before := prepaid.subscription_state(subscription);
    after := prepaid.asked_state(subscription, new_plan, new_price, new_addons,
                                 coalesce(on_date, running.end_date, today));

    IF after = before THEN
        RAISE EXCEPTION 'subscription % has that plan, price and add-ons already', s.subscription_ref;
    ELSIF waiting.kind = 'change' THEN
        RAISE EXCEPTION 'service plan % changes subscription % already, from % on: cancel it first',
            waiting.service_plan_id, s.subscription_ref, waiting.planned_start;
    END IF;
    IF on_date IS NOT NULL THEN
        SELECT p.* INTO later FROM prepaid.service_plans p
        WHERE p.subscription_id = subscription AND p.activated_on IS NOT NULL
          AND p.start_date >= running.end_date LIMIT 1;
        IF on_date < today THEN
            RAISE EXCEPTION '% has passed: a plan can be changed from today on, %', on_date, today;
        ELSIF running.service_plan_id IS NULL THEN
            RAISE EXCEPTION 'no term of subscription % runs on %: change it at the renewal instead',
                s.subscription_ref, on_date;
        ELSIF running.start_date = on_date THEN
            RAISE EXCEPTION 'the term of subscription % starts on %: change it from the next day on, or '
                'cancel it at once (all of it is paid back) and buy anew', s.subscription_ref, on_date;
        ELSIF s.cancelled_on IS NOT NULL THEN
            RAISE EXCEPTION 'subscription % is cancelled as of %: take that back first (import '
                'subscriptions.csv), or wait for the end', s.subscription_ref, s.cancelled_on;
        ELSIF later.service_plan_id IS NOT NULL THEN
            RAISE EXCEPTION 'the next term (service plan %, % to %) is paid already: change it from % on, '
                'or cancel it at once first (all of it is paid back)', later.service_plan_id,
                later.start_date, later.end_date, later.start_date + 1;
        ELSIF running.origin = 'pipeline' AND NOT EXISTS (
            SELECT FROM prepaid.invoices i
            WHERE i.service_plan_id = running.service_plan_id AND i.status = 'Paid') THEN
            RAISE EXCEPTION 'the payment of the running term (service plan %) was taken back: clear that '
                'up first', running.service_plan_id;
        ELSIF running.currency <> s.currency THEN
            RAISE EXCEPTION 'the running term is in %, subscription % now in %: change it at the renewal',
                running.currency, s.subscription_ref, s.currency;
        END IF;
        PERFORM prepaid.require_standing_payments(ARRAY[running.service_plan_id]);
        -- Says now what step 4 would fail for: a tax rate that is not known.
        PERFORM prepaid.unused_credit(running.service_plan_id, on_date, today);
    END IF;
    PERFORM prepaid.set_subscription_state(subscription, after);
    -- Step 0 may be opening the renewal at this moment: then the insert waits for it, does nothing, and
    -- the renewal is there to be cancelled.
    FOR attempt IN 1..3 LOOP
        EXIT WHEN on_date IS NULL OR opened IS NOT NULL;
        PERFORM prepaid.cancel_waiting_plan(p.service_plan_id, why) FROM prepaid.service_plans p
        WHERE p.subscription_id = subscription AND p.status IN ('Pending', 'Processing');
        INSERT INTO prepaid.service_plans (
            subscription_id, customer_id, plan_id, previous_plan_id, origin, kind, status, start_date,
            end_date, planned_start, anchor_date, term_months, term_days, opened_on, currency)
        SELECT subscription, s.customer_id, l.plan_id, running.service_plan_id, 'pipeline', 'change',
               'Pending', on_date, prepaid.term_end(on_date, on_date, l.term_months, l.term_days),
               on_date, on_date, l.term_months, l.term_days, today, s.currency
        FROM prepaid.plans l WHERE l.plan_id = (after ->> 'plan_id')::bigint
        ON CONFLICT DO NOTHING
        RETURNING service_plan_id INTO opened;
    END LOOP;
    IF on_date IS NOT NULL AND opened IS NULL THEN
        RAISE EXCEPTION 'another plan followed service plan % at this moment: look, and ask again',
            running.service_plan_id;
    END IF;
    INSERT INTO prepaid.requests (kind, subscription_id, service_plan_id, asked_on, effective_on, note,
                                  asked_by, before, after)
    VALUES ('change', subscription, opened, today, on_date, why, person, before, after);
    RETURN coalesce(opened, waiting.service_plan_id);
END $$;

-- Credit for the days of a term that are not used, and the credit note that gives it.

-- What a credit note for the term's days from from_date on would say, line by line. No rows when
-- nothing was paid (its invoice is not Paid) or no day is left.
--
-- Net: each line's net x unused days / days of the full term, rounded half up. Tax: per (tax class,
-- rate) group the invoice's own tax in the same proportion, rounded half up once, allocated by
-- largest remainder, ties by line number (as EN 16931 has it for the invoice). One-time fees are not
-- credited, unless no day at all was used: then the credit is exactly the invoice.
-- Imported history has no invoice: its lines are the price and the add-ons that were noted with the
-- term, taxed at the rates that are valid on taxed_on in the customer's country; with paid_plan, in the
-- country and with the exemption that the plan which they pay was invoiced with.
CREATE FUNCTION prepaid.unused_credit(
    plan bigint, from_date date, taxed_on date, paid_plan bigint DEFAULT NULL)
RETURNS TABLE (line_number integer, description text, net numeric, tax_class text, tax_rate numeric,
               tax numeric)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    term record;
    days integer;
    unused integer;
    unknown text;
BEGIN
    SELECT p.*, coalesce(p.full_end_date, p.end_date) AS paid_until, m.exponent, i.invoice_id,
           coalesce(paid.country, c.country) AS taxed_country,
           coalesce(paid.tax_exempt, c.tax_exempt) AS taxed_exempt, l.name AS present_name,
           coalesce(p.tax_class, l.tax_class) AS own_class
    INTO STRICT term
    FROM prepaid.service_plans p
    JOIN prepaid.customers c USING (customer_id)
    JOIN prepaid.currencies m ON m.currency = p.currency
    JOIN prepaid.plans l ON l.plan_id = p.plan_id
    LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Paid'
    LEFT JOIN prepaid.service_plans paid ON paid.service_plan_id = paid_plan
    WHERE p.service_plan_id = plan;
    days := term.paid_until - term.start_date;
    unused := term.paid_until - greatest(from_date, term.start_date);
    IF unused <= 0 OR term.origin = 'pipeline' AND term.invoice_id IS NULL THEN
        RETURN;
    END IF;

    IF term.origin = 'imported' AND NOT term.taxed_exempt THEN
        SELECT string_agg(DISTINCT class, ', ') INTO unknown
        FROM (SELECT term.own_class AS class
              UNION SELECT a ->> 'tax_class' FROM jsonb_array_elements(term.addons) a
              WHERE (a ->> 'recurring')::boolean OR unused = days) classes
        WHERE NOT EXISTS (SELECT FROM prepaid.tax_rates r WHERE r.country = term.taxed_country
                          AND r.tax_class = class AND r.valid_from <= taxed_on);
        IF unknown IS NOT NULL THEN
            RAISE EXCEPTION 'no tax rate is known for % in % on %, so the unused days of service plan % '
                'cannot be credited: add the rate (import tax_rates.csv), then again',
                unknown, term.taxed_country, taxed_on, plan;
        END IF;
    END IF;

    -- Amounts are whole numbers of the currency's smallest unit here, and div() is exact: a quotient
    -- that was rounded before could be half a cent on the wrong side.
    RETURN QUERY
    WITH lines AS (
        SELECT l.line_number, l.description, l.net, l.tax_class, l.tax_rate, l.tax,
               CASE WHEN l.line_number > 1
                   THEN (term.addons -> (l.line_number - 2) ->> 'recurring')::boolean END AS recurring
        FROM prepaid.invoice_lines l WHERE l.invoice_id = term.invoice_id
        UNION ALL
        SELECT n.line_number, n.description,
               CASE WHEN n.includes_tax THEN prepaid.without_tax(n.amount, coalesce(r.rate, 0), term.exponent)
                    ELSE n.amount END, n.tax_class, r.rate, NULL, n.recurring
        FROM (SELECT 1 AS line_number, coalesce(term.plan_name, term.present_name) AS description,
                     term.price * term.quantity AS amount, term.price_includes_tax AS includes_tax,
                     term.own_class AS tax_class, true AS recurring
              UNION ALL
              SELECT 1 + a.place::integer, a.name, a.price * coalesce(a.quantity, 1),
                     coalesce(a.includes_tax, false), a.tax_class, a.recurring
              FROM ROWS FROM (jsonb_to_recordset(term.addons) AS (
                  name text, price numeric, quantity integer, includes_tax boolean, tax_class text,
                  recurring boolean)) WITH ORDINALITY a (
                  name, price, quantity, includes_tax, tax_class, recurring, place)) n
        LEFT JOIN LATERAL (
            SELECT r.rate FROM prepaid.tax_rates r
            WHERE r.country = term.taxed_country AND r.tax_class = n.tax_class
              AND r.valid_from <= taxed_on AND NOT term.taxed_exempt
            ORDER BY r.valid_from DESC LIMIT 1) r ON true
        WHERE term.origin = 'imported'
    ), credited AS (
        SELECT l.*, div(2 * l.net * 10::numeric ^ term.exponent * unused + days, 2 * days) AS net_units
        FROM lines l WHERE unused = days OR coalesce(l.recurring, true)
    ), shares AS (
        -- The exact tax of a line in units is share / parts.
        SELECT c.*, CASE WHEN c.tax IS NULL THEN c.net_units * coalesce(c.tax_rate, 0)
                         ELSE c.tax * 10::numeric ^ term.exponent * unused END AS share,
               CASE WHEN c.tax IS NULL THEN 1 ELSE days END AS parts
        FROM credited c
    ), allocated AS (
        SELECT s.*, div(s.share, s.parts) AS floor_tax,
               div(2 * sum(s.share) OVER tax_group + s.parts, 2 * s.parts)
                   - sum(div(s.share, s.parts)) OVER tax_group AS left_over,
               row_number() OVER (PARTITION BY s.tax_class, s.tax_rate
                   ORDER BY mod(s.share, s.parts) DESC, s.line_number) AS place
        FROM shares s
        WINDOW tax_group AS (PARTITION BY s.tax_class, s.tax_rate)
    )
    SELECT a.line_number, a.description, round(a.net_units / 10::numeric ^ term.exponent, term.exponent),
           a.tax_class, a.tax_rate,
           round((a.floor_tax + (a.place <= a.left_over)::integer) / 10::numeric ^ term.exponent,
                 term.exponent)
    FROM allocated a
    WHERE a.net_units > 0 OR a.floor_tax > 0 OR a.place <= a.left_over
    ORDER BY a.line_number;
END $$;

-- Issues the credit note of a term; its id, null when there is nothing to credit. applied is what it
-- pays of invoice applied_to; the rest is to be paid back (the task opens by itself).
CREATE FUNCTION prepaid.issue_credit_note(
    plan bigint, from_date date, taxed_on date, why text, remark text,
    applied_to bigint DEFAULT NULL, applied numeric DEFAULT 0, paid_plan bigint DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    note_id bigint;
BEGIN
    WITH lines AS MATERIALIZED (
        SELECT * FROM prepaid.unused_credit(plan, from_date, taxed_on, paid_plan)
    ), issued AS (
        INSERT INTO prepaid.credit_notes (
            credit_note_number, service_plan_id, invoice_id, customer_id, currency, net, tax, total,
            reason, note, applied_to_invoice_id, applied, issued_on, issued_by)
        SELECT prepaid.next_document_number('CN', prepaid.today()), p.service_plan_id, i.invoice_id,
               p.customer_id, p.currency, l.net, l.tax, l.net + l.tax, why, remark,
               CASE WHEN issue_credit_note.applied > 0 THEN applied_to END,
               issue_credit_note.applied, prepaid.today(), prepaid.actor()
        FROM (SELECT sum(net) AS net, sum(tax) AS tax FROM lines HAVING sum(net + tax) > 0) l
        JOIN prepaid.service_plans p ON p.service_plan_id = plan
        LEFT JOIN prepaid.invoices i ON i.service_plan_id = plan AND i.status = 'Paid'
        RETURNING credit_note_id
    ), with_lines AS (
        INSERT INTO prepaid.credit_note_lines
            (credit_note_id, line_number, description, net, tax_class, tax_rate, tax)
        SELECT n.credit_note_id, l.* FROM issued n CROSS JOIN lines l
    )
    SELECT credit_note_id INTO note_id FROM issued;
    RETURN note_id;
END $$;

-- What is not used to pay another invoice is owed to the customer: finance is asked to pay it back.
CREATE FUNCTION prepaid.follow_credit_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, after, detail, actor, run_id, as_of)
    VALUES ('credit_note_issued', NEW.service_plan_id, 'credit_note', NEW.credit_note_id, NULL,
            format('%s over %s %s', NEW.credit_note_number, NEW.total, NEW.currency),
            prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    IF NEW.total > NEW.applied THEN
        INSERT INTO prepaid.tasks
            (kind, service_plan_id, invoice_id, credit_note_id, assigned_role, opened_on)
        VALUES ('payment_refund', NEW.service_plan_id, NEW.invoice_id, NEW.credit_note_id, 'finance',
                NEW.issued_on);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER follow_credit_note AFTER INSERT ON prepaid.credit_notes
    FOR EACH ROW EXECUTE FUNCTION prepaid.follow_credit_note();

-- Void and reissue: a number that was given stays, the plan goes back to before step 1.

-- Voids the open invoice of a plan with what hangs on it: nobody is asked to pay or to verify any
-- more, and money that was matched to it goes to finance as a task.
CREATE FUNCTION prepaid.void_open_invoice(plan bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = plan AND kind = 'payment_verification' AND status = 'Open';
    -- Money of a paid invoice that was credited is paid back by the credit note's own task.
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on)
    SELECT 'payment_review', plan, i.invoice_id, t.transaction_id, 'finance', prepaid.today()
    FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
    -- Void ones have no matched record. Saying so finds the invoice by its index; reading 40,000 of
    -- them cost 34 ms for each plan.
    WHERE i.service_plan_id = plan AND i.status <> 'Void' AND t.outcome = 'matched'
      AND NOT EXISTS (SELECT FROM prepaid.credit_notes n WHERE n.service_plan_id = plan)
    ON CONFLICT DO NOTHING;
    -- In the words of match_payments for a record that comes only now.
    UPDATE prepaid.transactions t
    SET outcome = 'parked', outcome_reason = format('invoice %s is void', i.invoice_number)
    FROM prepaid.invoices i
    WHERE i.service_plan_id = plan AND i.status = 'Open'
      AND t.invoice_id = i.invoice_id AND t.outcome = 'matched';
    -- The record is free: a person may assign it to another invoice.
    UPDATE prepaid.invoices SET status = 'Void', transaction_id = NULL
    WHERE service_plan_id = plan AND status = 'Open';
END $$;

-- Voids an open invoice for the finance officer who is acting. With reissue the next run issues a new
-- one from what the subscription has then; without, the plan is held until somebody decides. The invoice
-- of a plan that is over (its payment was taken back) is not collectible; the plan stays as it is.
-- Returns the plan.
CREATE FUNCTION prepaid.void_invoice(number text, reissue boolean, why text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_in(ARRAY['finance'], 'void invoices', why);
    i record;
    p record;
    over boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
    SELECT plan.* INTO p FROM prepaid.service_plans plan JOIN prepaid.invoices USING (service_plan_id)
    WHERE invoice_number = number FOR NO KEY UPDATE OF plan;
    -- The invoice as it is now that the plan is ours: a step may have paid it while we waited.
    SELECT * INTO i FROM prepaid.invoices WHERE invoice_number = number;
    over := p.status IN ('Expired', 'Cancelled');
    IF i.invoice_id IS NULL THEN
        RAISE EXCEPTION 'there is no invoice %', number;
    ELSIF i.status <> 'Open' THEN
        RAISE EXCEPTION 'invoice % is %: only an open one can be voided%', number, i.status,
            CASE i.status WHEN 'Paid' THEN '; a paid one is credited by cancelling its plan' ELSE '' END;
    ELSIF p.status = 'Active' THEN
        RAISE EXCEPTION 'service plan % of invoice % runs, though its payment was taken back: %',
            p.service_plan_id, number, CASE WHEN p.full_end_date IS NULL
                THEN 'cancel it at once, that voids the invoice'
                ELSE format('void it when the term has ended, on %s', p.end_date) END;
    ELSIF reissue AND over THEN
        RAISE EXCEPTION 'service plan % of invoice % is %: its invoice can be voided, not issued anew',
            p.service_plan_id, number, p.status;
    END IF;
    PERFORM prepaid.void_open_invoice(p.service_plan_id);
    -- What was doubtful about the payment was about this invoice.
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = person, note = why
    WHERE service_plan_id = p.service_plan_id AND released_at IS NULL
      AND reason_code IN ('payment_rejected', 'payment_mismatch', 'payment_reversed');
    -- A term that is over stays as it was: what was taken back is not collectible.
    IF NOT over THEN
        DELETE FROM prepaid.charges WHERE service_plan_id = p.service_plan_id;
    END IF;
    -- An order keeps the price that was agreed; all else is taken anew from the subscription.
    UPDATE prepaid.service_plans
    SET status = 'Pending', invoiced_at = NULL, retrieved_at = NULL, batch_id = NULL,
        price = CASE WHEN opened_on IS NULL THEN price END
    WHERE service_plan_id = p.service_plan_id AND NOT over;
    IF NOT reissue AND NOT over THEN
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT p.service_plan_id, 'invoice_voided', format(
            '%s voided invoice %s: %s. Release the hold and a new invoice is issued, or cancel the plan.',
            person, number, why)
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
    END IF;
    INSERT INTO prepaid.requests
        (kind, subscription_id, service_plan_id, invoice_id, asked_on, note, asked_by)
    VALUES (CASE WHEN reissue THEN 'invoice_reissue' ELSE 'invoice_void' END, p.subscription_id,
            p.service_plan_id, i.invoice_id, prepaid.today(), why, person);
    RETURN p.service_plan_id;
END $$;

-- Payments that were taken back, in the month in which it happened: amounts as the provider moved
-- them, with tax. A reversed chargeback is money that came back again: its amount is negative.
CREATE TABLE revenue.payment_reversals (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    kind text NOT NULL CHECK (kind IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed')),
    records bigint NOT NULL CHECK (records > 0),
    amount numeric NOT NULL,
    PRIMARY KEY (month, currency, kind),
    CHECK (CASE kind WHEN 'ChargebackReversed' THEN amount <= 0 ELSE amount >= 0 END)
);

CREATE UNLOGGED TABLE revenue.payment_reversals_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    kind text,
    records bigint,
    amount numeric
);

CREATE TABLE revenue.credit_notes_issued (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    credit_notes bigint NOT NULL CHECK (credit_notes > 0),
    net numeric NOT NULL CHECK (net >= 0),
    tax numeric NOT NULL CHECK (tax >= 0),
    total numeric NOT NULL,
    PRIMARY KEY (month, currency),
    CHECK (net + tax = total)
);

CREATE UNLOGGED TABLE revenue.credit_notes_issued_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    credit_notes bigint,
    net numeric,
    tax numeric,
    total numeric
);

CREATE VIEW revenue.staged_payment_reversals AS
    SELECT * FROM revenue.payment_reversals_staging WHERE run_id = prepaid.run_id();

CREATE VIEW revenue.staged_credit_notes_issued AS
    SELECT * FROM revenue.credit_notes_issued_staging WHERE run_id = prepaid.run_id();

REVOKE EXECUTE ON FUNCTION prepaid.decide_tasks FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION prepaid.release_holds FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION prepaid.assign_record FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION prepaid.resend_emails FROM PUBLIC;

GRANT EXECUTE ON FUNCTION prepaid.assign_record TO finance;

GRANT EXECUTE ON FUNCTION prepaid.resend_emails TO customer_success, engineering;

REVOKE EXECUTE ON FUNCTION prepaid.cancel, prepaid.change_plan, prepaid.void_invoice FROM PUBLIC;

GRANT EXECUTE ON FUNCTION prepaid.cancel, prepaid.change_plan TO finance, customer_success;

GRANT EXECUTE ON FUNCTION prepaid.void_invoice TO finance;

GRANT SELECT, UPDATE (decision, note) ON prepaid.payment_verifications TO finance;

GRANT SELECT ON prepaid.payment_suggestions TO finance;

GRANT SELECT ON prepaid.customers, prepaid.subscriptions, prepaid.service_plans, prepaid.invoices,
    prepaid.invoice_lines, prepaid.credit_notes, prepaid.credit_note_lines, prepaid.requests,
    prepaid.transactions, prepaid.tasks, prepaid.sign_offs, prepaid.holds
    TO finance;

GRANT SELECT, UPDATE (decision, note) ON prepaid.quality_checks TO customer_success;

CREATE VIEW revenue.staged_monthly_report AS
    SELECT * FROM revenue.monthly_report_staging WHERE run_id = prepaid.run_id();

GRANT SELECT ON ALL TABLES IN SCHEMA prepaid TO engineering;
GRANT SELECT ON ALL TABLES IN SCHEMA revenue TO finance, leadership, engineering;
