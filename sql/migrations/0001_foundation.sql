-- The first schema: sql/schema as it was when this was frozen.

-- 01_reference.sql
-- What is sold and how it is taxed: currencies, plans, add-ons, price lists, tax rates.

-- The migrations make the schema first, for the table that says which of them have run.
CREATE SCHEMA IF NOT EXISTS prepaid;

<<<<<<< HEAD
=======
-- One row: what holds for the whole installation. 'prepaid migrate' writes it from PREPAID_TIMEZONE and
-- PREPAID_TASK_DAYS, so that everybody who works with the tables counts the same days.
CREATE TABLE prepaid.installation (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    timezone text NOT NULL,
    -- How many days people have for a task.
    task_days integer NOT NULL DEFAULT 3 CHECK (task_days >= 0)
);
INSERT INTO prepaid.installation (timezone) VALUES ('UTC');

-- The day that a moment belongs to, where the installation is.
CREATE FUNCTION prepaid.business_date(moment timestamptz) RETURNS date LANGUAGE sql STABLE RETURN
    (moment AT TIME ZONE (SELECT timezone FROM prepaid.installation))::date;

>>>>>>> e5a93ca (Two people approve above the limit, four eyes, accounts and sessions of the pages, views for them; rights are a table that a test compares with the catalogue)
-- ISO 4217: the exponent is the number of decimals an amount of the currency can have.
CREATE TABLE prepaid.currencies (
    currency text PRIMARY KEY CHECK (currency ~ '^[A-Z]{3}$'),
    exponent smallint NOT NULL CHECK (exponent BETWEEN 0 AND 4)
);

INSERT INTO prepaid.currencies (currency, exponent)
SELECT unnest(ARRAY[
    'AED', 'ARS', 'AUD', 'BDT', 'BGN', 'BRL', 'CAD', 'CHF', 'CNY', 'COP', 'CRC', 'CZK', 'DKK',
    'DOP', 'EGP', 'EUR', 'GBP', 'GEL', 'GHS', 'HKD', 'HUF', 'IDR', 'ILS', 'INR', 'KES', 'KZT',
    'LKR', 'MAD', 'MDL', 'MKD', 'MUR', 'MXN', 'MYR', 'NGN', 'NOK', 'NZD', 'PEN', 'PHP', 'PKR',
    'PLN', 'QAR', 'RON', 'RSD', 'SAR', 'SEK', 'SGD', 'THB', 'TRY', 'TWD', 'TZS', 'UAH', 'USD',
    'UYU', 'ZAR', 'ZMW']), 2
UNION ALL SELECT unnest(ARRAY['CLP', 'ISK', 'JPY', 'KRW', 'PYG', 'RWF', 'UGX', 'VND', 'XAF', 'XOF']), 0
UNION ALL SELECT unnest(ARRAY['BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND']), 3;

-- A term is either months or days. PostgreSQL's interval is no key for it: P30D and P1M compare
-- as equal there, and they are two different terms on a price list.
CREATE TABLE prepaid.plans (
    plan_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_code text NOT NULL UNIQUE,
    name text NOT NULL,
    term_months integer NOT NULL DEFAULT 0 CHECK (term_months BETWEEN 0 AND 1200),
    term_days integer NOT NULL DEFAULT 0 CHECK (term_days BETWEEN 0 AND 36500),
    tax_class text NOT NULL DEFAULT 'standard',
    CHECK ((term_months > 0) <> (term_days > 0))
);

-- A plan may be sold in a currency without a list price: then each subscription has its own.
-- (NaN is greater than any number in PostgreSQL: "< Infinity" refuses both.)
CREATE TABLE prepaid.plan_prices (
    plan_id bigint NOT NULL REFERENCES prepaid.plans,
    currency text NOT NULL REFERENCES prepaid.currencies,
    price numeric CHECK (price >= 0 AND price < 'Infinity'),
    PRIMARY KEY (plan_id, currency)
);

CREATE TABLE prepaid.addons (
    addon_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    addon_code text NOT NULL UNIQUE,
    name text NOT NULL,
    recurring boolean NOT NULL,
    tax_class text NOT NULL DEFAULT 'standard'
);

-- The add-on's price when it is sold with a plan of that term.
CREATE TABLE prepaid.addon_prices (
    addon_id bigint NOT NULL REFERENCES prepaid.addons,
    term_months integer NOT NULL,
    term_days integer NOT NULL,
    currency text NOT NULL REFERENCES prepaid.currencies,
    price numeric NOT NULL CHECK (price >= 0 AND price < 'Infinity'),
    PRIMARY KEY (addon_id, term_months, term_days, currency),
    CHECK ((term_months > 0) <> (term_days > 0))
);

-- rate is a fraction (0.0725 is 7.25 %). No row is "unknown", 0 is "zero-rated"; exempt is a
-- property of the customer. The three are never the same thing.
CREATE TABLE prepaid.tax_rates (
    country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    tax_class text NOT NULL,
    rate numeric NOT NULL CHECK (rate >= 0 AND rate <= 1),
    valid_from date NOT NULL,
    PRIMARY KEY (country, tax_class, valid_from)
);

-- The end of the term that starts on start_date, for a subscription anchored on anchor_date:
-- counted from the anchor, never from the start, so 31 Jan -> 28 Feb -> 31 Mar.
CREATE FUNCTION prepaid.term_end(
    anchor_date date, start_date date, term_months integer, term_days integer
) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN term_days > 0 THEN start_date + term_days
    ELSE (anchor_date + make_interval(months => term_months
            + 12 * (extract(year FROM start_date) - extract(year FROM anchor_date))::integer
            + (extract(month FROM start_date) - extract(month FROM anchor_date))::integer))::date
    END;

-- The anchor if start_date is one of its month boundaries, else start_date as a new anchor:
-- a term that starts off the grid would get an end that is too early or too late.
CREATE FUNCTION prepaid.anchor_for(anchor_date date, start_date date) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN (anchor_date + make_interval(months =>
            12 * (extract(year FROM start_date) - extract(year FROM anchor_date))::integer
            + (extract(month FROM start_date) - extract(month FROM anchor_date))::integer))::date
        = start_date THEN anchor_date ELSE start_date END;

-- Lead and grace of a term in days are at most half the term: a weekly plan cannot have a week of grace.
CREATE FUNCTION prepaid.days_within_term(days integer, term_days integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN term_days > 0 THEN least(days, term_days / 2) ELSE days END;

-- 02_customers.sql
-- Who buys: customers and their subscriptions.

CREATE TABLE prepaid.customers (
    customer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_ref text NOT NULL UNIQUE,
    name text NOT NULL,
    email text,
    country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    currency text NOT NULL REFERENCES prepaid.currencies,
    tax_exempt boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- price is the customer's own net price for one term; null means the price list's.
CREATE TABLE prepaid.subscriptions (
    subscription_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_ref text NOT NULL UNIQUE,
    customer_id bigint NOT NULL REFERENCES prepaid.customers,
    plan_id bigint NOT NULL REFERENCES prepaid.plans,
    started_on date NOT NULL,
    anchor_date date NOT NULL,
    auto_renew boolean NOT NULL,
    price numeric CHECK (price >= 0 AND price < 'Infinity'),
    cancelled_on date,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX subscriptions_by_customer ON prepaid.subscriptions (customer_id);

-- Imported beside a service_plans.csv that has not been taken yet (or was refused): until it is, a
-- subscription without terms is no purchase, it may have been running for years.
CREATE TABLE prepaid.subscriptions_awaiting_history (
    subscription_id bigint PRIMARY KEY REFERENCES prepaid.subscriptions
);

CREATE TABLE prepaid.subscription_addons (
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    addon_id bigint NOT NULL REFERENCES prepaid.addons,
    PRIMARY KEY (subscription_id, addon_id)
);

-- 03_service_plans.sql
-- One row of service_plans is one prepaid term of one subscription: it is the process instance.

CREATE EXTENSION IF NOT EXISTS btree_gist;

-- A batch is a lease on up to 10,000 plans. The lease is renewed here by every step, one row
-- instead of ten thousand; a plan whose batch's lease has run out may be claimed by another batch.
CREATE TABLE prepaid.batches (
    batch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL CHECK (queue IN ('open_renewals', 'settle_renewals')),
    as_of date NOT NULL,
    run_id text,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_until timestamptz NOT NULL,
    finished_at timestamptz
);

CREATE TABLE prepaid.service_plans (
    service_plan_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    customer_id bigint NOT NULL REFERENCES prepaid.customers,
    plan_id bigint NOT NULL REFERENCES prepaid.plans,
    previous_plan_id bigint REFERENCES prepaid.service_plans,
    origin text NOT NULL CHECK (origin IN ('imported', 'pipeline')),
    kind text NOT NULL CHECK (kind IN ('new', 'renewal', 'reactivation')),
    status text NOT NULL CHECK (status IN ('Pending', 'Processing', 'Active', 'Expired', 'Cancelled')),

    -- The term is [start_date, end_date). Planned when the plan is opened, fixed when it is activated.
    -- planned_start never changes: by it an order that is delivered again is recognised.
    start_date date NOT NULL,
    end_date date NOT NULL,
    planned_start date NOT NULL,
    anchor_date date NOT NULL,
    term_months integer NOT NULL,
    term_days integer NOT NULL,
    -- The business date of step 0; null for what was imported, history and orders.
    opened_on date,

    -- What step 1 took from the customer, the price list and the subscription; the invoice and the
    -- confirmation are made from it and do not change with them. addons is an array of
    -- {"addon_code", "name", "price", "recurring", "tax_class"}, ordered by code. Amounts are net.
    currency text NOT NULL REFERENCES prepaid.currencies,
    price numeric CHECK (price >= 0 AND price < 'Infinity'),
    addons jsonb,
    customer_name text,
    email text,
    country text,
    tax_exempt boolean,
    plan_name text,
    tax_class text,
    retrieved_at timestamptz,

    -- net_amount: the whole term, one-time fees included. recurring_amount: without them.
    -- monthly_amount: the term's part of monthly recurring revenue, unrounded.
    net_amount numeric CHECK (net_amount >= 0 AND net_amount < 'Infinity'),
    recurring_amount numeric CHECK (recurring_amount >= 0),
    monthly_amount numeric GENERATED ALWAYS AS (
        CASE WHEN term_months > 0 THEN recurring_amount / term_months
        ELSE recurring_amount * 365.25 / 12 / term_days END) STORED,

    invoiced_at timestamptz,
    activated_on date,
    activated_at timestamptz,
    settled_at timestamptz,
    -- No foreign key: it would cost a look-up per plan and claim, and a batch is never deleted.
    batch_id bigint,

    CHECK (end_date > start_date),
    CHECK ((term_months > 0) <> (term_days > 0)),
    CHECK (status NOT IN ('Active', 'Expired')
        OR (activated_on IS NOT NULL AND net_amount IS NOT NULL AND recurring_amount IS NOT NULL)),
    CHECK (settled_at IS NULL OR activated_on IS NOT NULL),
    CHECK (status <> 'Processing' OR invoiced_at IS NULL),

    -- Two terms of one subscription never overlap. A waiting or cancelled plan must not block.
    CONSTRAINT service_plans_terms_do_not_overlap EXCLUDE USING gist (
        subscription_id WITH =, daterange(start_date, end_date) WITH &&)
        WHERE (status IN ('Active', 'Expired'))
);
CREATE UNIQUE INDEX service_plans_one_live_successor ON prepaid.service_plans (previous_plan_id)
    WHERE status <> 'Cancelled' AND previous_plan_id IS NOT NULL;
CREATE UNIQUE INDEX service_plans_one_live_first_plan ON prepaid.service_plans (subscription_id)
    WHERE status <> 'Cancelled' AND previous_plan_id IS NULL;
CREATE INDEX service_plans_by_subscription ON prepaid.service_plans (subscription_id, start_date);
CREATE INDEX service_plans_by_batch ON prepaid.service_plans (batch_id, service_plan_id)
    WHERE batch_id IS NOT NULL;
CREATE INDEX service_plans_to_invoice ON prepaid.service_plans (service_plan_id)
    WHERE invoiced_at IS NULL AND status IN ('Pending', 'Processing');
CREATE INDEX service_plans_to_settle ON prepaid.service_plans (service_plan_id)
    WHERE invoiced_at IS NOT NULL AND settled_at IS NULL AND status IN ('Pending', 'Active');
CREATE INDEX service_plans_ending ON prepaid.service_plans (end_date)
    WHERE status IN ('Active', 'Expired');
CREATE INDEX service_plans_to_expire ON prepaid.service_plans (end_date) WHERE status = 'Active';

-- A held plan keeps its status and leaves its batch; when a person releases it, it goes on where it was.
CREATE TABLE prepaid.holds (
    hold_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_plan_id bigint NOT NULL REFERENCES prepaid.service_plans,
    reason_code text NOT NULL,
    text text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    released_by text,
    note text,
    CHECK ((released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX holds_one_live_per_reason ON prepaid.holds (service_plan_id, reason_code)
    WHERE released_at IS NULL;

-- Step 3: what will be invoiced. tax_rate null means exempt.
CREATE TABLE prepaid.charges (
    service_plan_id bigint NOT NULL REFERENCES prepaid.service_plans,
    line_number integer NOT NULL CHECK (line_number > 0),
    description text NOT NULL,
    currency text NOT NULL REFERENCES prepaid.currencies,
    net numeric NOT NULL CHECK (net >= 0),
    tax_class text NOT NULL,
    tax_rate numeric CHECK (tax_rate >= 0),
    tax numeric NOT NULL CHECK (tax >= 0),
    calculated_for date NOT NULL,
    PRIMARY KEY (service_plan_id, line_number),
    CHECK (tax_rate IS NOT NULL OR tax = 0)
);

-- 04_invoices.sql
-- Invoices with gapless numbers per series and year of issue.

CREATE TABLE prepaid.invoice_series (
    series text NOT NULL,
    year integer NOT NULL,
    last_number integer NOT NULL DEFAULT 0 CHECK (last_number >= 0),
    PRIMARY KEY (series, year)
);

CREATE FUNCTION prepaid.invoice_number(series text, year integer, number bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    series || '-' || year || '-' || lpad(number::text, greatest(6, length(number::text)), '0');

CREATE TABLE prepaid.invoices (
    invoice_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    invoice_number text NOT NULL UNIQUE,
    service_plan_id bigint NOT NULL REFERENCES prepaid.service_plans,
    customer_id bigint NOT NULL REFERENCES prepaid.customers,
    currency text NOT NULL REFERENCES prepaid.currencies,
    net numeric NOT NULL CHECK (net >= 0),
    tax numeric NOT NULL CHECK (tax >= 0),
    total numeric NOT NULL,
    status text NOT NULL CHECK (status IN ('Open', 'Paid', 'Void')),
    tax_note text,
    issued_on date NOT NULL,
    paid_on date,
    -- Step 6 notes the provider's record here; unique, because a record pays one invoice only.
    transaction_id bigint UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (net + tax = total),
    CHECK ((status = 'Paid') = (paid_on IS NOT NULL))
);
CREATE UNIQUE INDEX invoices_one_live_per_plan ON prepaid.invoices (service_plan_id)
    WHERE status <> 'Void';
CREATE INDEX invoices_by_customer ON prepaid.invoices (customer_id);

CREATE TABLE prepaid.invoice_lines (
    invoice_id bigint NOT NULL REFERENCES prepaid.invoices,
    line_number integer NOT NULL,
    description text NOT NULL,
    net numeric NOT NULL CHECK (net >= 0),
    tax_class text NOT NULL,
    tax_rate numeric CHECK (tax_rate >= 0),
    tax numeric NOT NULL CHECK (tax >= 0),
    PRIMARY KEY (invoice_id, line_number)
);

-- 05_transactions.sql
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
    decided_at timestamptz
);
CREATE INDEX transactions_by_event
    ON prepaid.transactions (provider, provider_ref, status, occurred_at);
CREATE INDEX transactions_by_invoice_number ON prepaid.transactions (invoice_number);
CREATE INDEX transactions_undecided ON prepaid.transactions (transaction_id) WHERE outcome IS NULL;
CREATE INDEX transactions_waiting ON prepaid.transactions (provider, provider_ref)
    WHERE outcome = 'waiting';
CREATE UNIQUE INDEX transactions_one_match_per_invoice ON prepaid.transactions (invoice_id)
    WHERE outcome = 'matched';

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
        WHERE t.provider = NEW.provider AND t.provider_ref = NEW.provider_ref
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

<<<<<<< HEAD
=======
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

-- Two invoice numbers that differ as hands and machines make them differ: in case and blanks, or by two
-- neighbours exchanged. (Not by one wrong digit: that is the number of another invoice.)
CREATE FUNCTION prepaid.one_slip_apart(a text, b text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    SELECT CASE
        WHEN x = y THEN 'written differently'
        WHEN length(x) <> length(y) OR length(x) > 40 THEN NULL
        WHEN substr(x, place + 2) = substr(y, place + 2)
             AND substr(x, place, 2) = reverse(substr(y, place, 2)) THEN 'two digits exchanged' END
    FROM (SELECT upper(regexp_replace(a, '[^[:alnum:]]', '', 'g')) AS x,
                 upper(regexp_replace(b, '[^[:alnum:]]', '', 'g')) AS y) plain
    CROSS JOIN LATERAL (SELECT min(n) AS place FROM generate_series(1, least(length(x), 40)) n
                        WHERE substr(x, n, 1) <> substr(y, n, 1)) first_difference);

>>>>>>> e5a93ca (Two people approve above the limit, four eyes, accounts and sessions of the pages, views for them; rights are a table that a test compares with the catalogue)
-- 06_audit_log.sql
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

-- Who last changed a customer, a subscription or a discount.
CREATE INDEX audit_log_of_master_data ON prepaid.audit_log (entity, entity_id, audit_id)
    WHERE service_plan_id IS NULL;

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

CREATE FUNCTION prepaid.audit_record_outcomes() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'transaction_' || n.outcome, i.service_plan_id, 'transaction', n.transaction_id,
           o.outcome, n.outcome, n.outcome_reason, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (transaction_id)
    LEFT JOIN prepaid.invoices i ON i.invoice_id = n.invoice_id
    WHERE n.outcome IS DISTINCT FROM o.outcome;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_record_outcomes AFTER UPDATE ON prepaid.transactions
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_record_outcomes();

-- Master data: which columns changed, with values where they are prices and not personal data
-- (TG_ARGV: entity, key column, 'names' or 'values').
CREATE FUNCTION prepaid.audit_master_data() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed text;
BEGIN
    SELECT string_agg(n.key || CASE TG_ARGV[2] WHEN 'values'
               THEN ': ' || coalesce(o.value, 'none') || ' -> ' || coalesce(n.value, 'none')
               ELSE '' END, ', ' ORDER BY n.key)
    INTO changed
    FROM jsonb_each_text(to_jsonb(NEW)) n
    JOIN jsonb_each_text(to_jsonb(OLD)) o USING (key)
    WHERE n.value IS DISTINCT FROM o.value;
    INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
    VALUES (TG_ARGV[0] || '_changed', TG_ARGV[0], (to_jsonb(NEW) ->> TG_ARGV[1])::bigint, changed,
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
    EXECUTE FUNCTION prepaid.audit_master_data('plan_price', 'plan_id', 'values');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.addons
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('addon', 'addon_id', 'values');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.addon_prices
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('addon_price', 'addon_id', 'values');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.tax_rates
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
<<<<<<< HEAD
    EXECUTE FUNCTION prepaid.audit_master_data('tax_rate', 'no single key', 'values');
=======
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

-- 07_people.sql
-- Who counts as a person of a team. Teams are database roles; each person is a role of their own in
-- one of them.

-- How a person signs in at the pages, and where mail reaches them. Nobody reads the table: the pages
-- ask functions (14_desk.sql). The role is what holds rights; an account without one can do nothing.
CREATE TABLE prepaid.desk_accounts (
    person text PRIMARY KEY,
    -- argon2id, in its own encoded form; null for those who sign in elsewhere or only decide by SQL.
    password_hash text CHECK (password_hash LIKE '$argon2id$%'),
    failed integer NOT NULL DEFAULT 0 CHECK (failed >= 0),
    locked_until timestamptz,
    -- Who left: can neither sign in nor decide, in no way; what they decided stays.
    disabled boolean NOT NULL DEFAULT false,
    email text CHECK (email LIKE '_%@_%' AND email !~ '[[:cntrl:][:space:]]'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The people of each team. Not a superuser, not the pipeline's own user and not a team's role itself,
-- whatever they are members of: a decision has one person's name.
CREATE VIEW prepaid.team_members AS
SELECT r.rolname::text AS person, team.name AS team, a.email
FROM unnest(ARRAY['finance', 'customer_success', 'leadership', 'engineering']) team (name)
JOIN pg_roles r ON pg_has_role(r.oid, team.name::name, 'USAGE')
LEFT JOIN prepaid.desk_accounts a ON a.person = r.rolname
WHERE NOT r.rolsuper AND a.disabled IS NOT TRUE
  AND r.rolname NOT IN ('finance', 'customer_success', 'leadership', 'engineering', 'desk')
  AND r.oid <> (SELECT relowner FROM pg_class WHERE oid = 'prepaid.desk_accounts'::regclass);

-- For functions that act with the owner's rights: others may not read team_members.
CREATE FUNCTION prepaid.is_in_team(name text, VARIADIC teams text[]) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM prepaid.team_members m
                   WHERE m.person = is_in_team.name AND m.team = ANY (teams));
END $$;

-- 07_requests.sql
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
    IF NOT prepaid.is_in_team(person, VARIADIC teams) THEN
        RAISE EXCEPTION '% may not %: not in %', person, what, array_to_string(teams, ' or ');
    END IF;
    IF coalesce(why, '') !~ '\S' THEN
        RAISE EXCEPTION 'to % needs a note that says why', what;
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    RETURN person;
END $$;
>>>>>>> e5a93ca (Two people approve above the limit, four eyes, accounts and sessions of the pages, views for them; rights are a table that a test compares with the catalogue)

-- 07_tasks.sql
-- What people are asked to do, and what they decided.

-- Above this amount two different people of finance approve a payment or a refund; a currency that is
-- not here needs one. 'prepaid migrate' writes it from PREPAID_SECOND_APPROVAL_ABOVE.
CREATE TABLE prepaid.approval_limits (
    currency text PRIMARY KEY REFERENCES prepaid.currencies,
    amount numeric NOT NULL CHECK (amount >= 0 AND amount < 'Infinity')
);
CREATE FUNCTION prepaid.audit_approval_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log (event, entity, before, after, detail, actor, run_id, as_of)
    VALUES ('approval_limit_changed', 'approval_limit', OLD.amount, NEW.amount,
            coalesce(NEW.currency, OLD.currency), prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    RETURN NULL;
END $$;
CREATE TRIGGER audit_approval_limit AFTER INSERT OR UPDATE OR DELETE ON prepaid.approval_limits
    FOR EACH ROW EXECUTE FUNCTION prepaid.audit_approval_limit();

CREATE TABLE prepaid.tasks (
    task_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN (
        'payment_verification', 'payment_review', 'quality_check', 'quality_follow_up')),
    service_plan_id bigint REFERENCES prepaid.service_plans,
    invoice_id bigint REFERENCES prepaid.invoices,
    transaction_id bigint REFERENCES prepaid.transactions,
    parent_task_id bigint UNIQUE REFERENCES prepaid.tasks,
    assigned_role text NOT NULL CHECK (assigned_role IN ('finance', 'customer_success')),
    status text NOT NULL DEFAULT 'Open' CHECK (status IN ('Open', 'Done', 'Withdrawn')),
    opened_on date NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The latest sign-off; all of them are in sign_offs.
    decision text,
    note text,
    decided_by text,
    decided_at timestamptz,
    -- When close_quality_checks has acted on a quality decision; it cannot be changed after that.
    closed_at timestamptz,
<<<<<<< HEAD
=======
    credit_note_id bigint REFERENCES prepaid.credit_notes,
    -- Above the limit: who approved first. The task stays Open until somebody else approves as well.
    first_approved_by text,
    first_approved_at timestamptz,
    due_on date NOT NULL,
    -- The person who is asked; null: the whole team. Anybody of the team may decide.
    assigned_to text,
>>>>>>> e5a93ca (Two people approve above the limit, four eyes, accounts and sessions of the pages, views for them; rights are a table that a test compares with the catalogue)
    CHECK ((status = 'Open') = (decision IS NULL) OR status = 'Withdrawn'),
    CHECK (decision IS NULL OR decision IN ('approved', 'rejected') AND kind LIKE 'payment%'
        OR decision IN ('passed', 'failed') AND kind LIKE 'quality%'),
    CHECK (kind <> 'payment_verification' OR invoice_id IS NOT NULL),
    CHECK (kind <> 'payment_review' OR transaction_id IS NOT NULL),
    CHECK (kind NOT LIKE 'quality%' OR service_plan_id IS NOT NULL),
    CONSTRAINT tasks_first_approval_is_whole CHECK (
        (first_approved_by IS NULL) = (first_approved_at IS NULL)),
    CONSTRAINT tasks_first_approval_leads_to_another CHECK (
        first_approved_by IS NULL OR decision IS NULL OR decision = 'approved'),
    CONSTRAINT tasks_approved_by_two_people CHECK (
        decision IS DISTINCT FROM 'approved' OR first_approved_by IS NULL
        OR coalesce(first_approved_by <> decided_by, false))
);
CREATE UNIQUE INDEX tasks_one_live_verification_per_invoice ON prepaid.tasks (invoice_id)
    WHERE kind = 'payment_verification' AND status <> 'Withdrawn';
CREATE UNIQUE INDEX tasks_one_review_per_record ON prepaid.tasks (transaction_id)
    WHERE kind = 'payment_review';
CREATE UNIQUE INDEX tasks_one_quality_check_per_plan ON prepaid.tasks (service_plan_id)
    WHERE kind = 'quality_check';
CREATE INDEX tasks_by_service_plan ON prepaid.tasks (service_plan_id);
CREATE INDEX tasks_open ON prepaid.tasks (kind, task_id) WHERE status = 'Open';
CREATE INDEX tasks_quality_to_close ON prepaid.tasks (task_id)
    WHERE kind IN ('quality_check', 'quality_follow_up') AND status = 'Done' AND closed_at IS NULL;


-- Which tasks need two people, as the limits are now.
CREATE VIEW prepaid.two_person_tasks AS
SELECT k.task_id, l.amount AS above, l.currency
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.approval_limits l ON l.currency = i.currency AND i.payable > l.amount
WHERE k.kind = 'payment_verification'
UNION ALL
SELECT k.task_id, l.amount, l.currency
FROM prepaid.tasks k
JOIN prepaid.credit_notes n USING (credit_note_id)
JOIN prepaid.approval_limits l ON l.currency = n.currency AND n.refund > l.amount
WHERE k.kind = 'payment_refund';

CREATE FUNCTION prepaid.set_due_date() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.due_on := NEW.opened_on + (SELECT task_days FROM prepaid.installation);
    RETURN NEW;
END $$;
CREATE TRIGGER set_due_date BEFORE INSERT ON prepaid.tasks
    FOR EACH ROW WHEN (NEW.due_on IS NULL) EXECUTE FUNCTION prepaid.set_due_date();

-- Whoever writes, and whatever way: above the limit there is no approval by one alone.
CREATE FUNCTION prepaid.require_two_people() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM prepaid.two_person_tasks two WHERE two.task_id = NEW.task_id) THEN
        RAISE EXCEPTION 'task % needs the approval of two people', NEW.task_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER require_two_people BEFORE UPDATE ON prepaid.tasks
    FOR EACH ROW WHEN (NEW.decision = 'approved' AND OLD.decision IS DISTINCT FROM 'approved'
                       AND NEW.first_approved_by IS NULL)
    EXECUTE FUNCTION prepaid.require_two_people();

CREATE TABLE prepaid.sign_offs (
    sign_off_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL REFERENCES prepaid.tasks,
    decision text NOT NULL CHECK (decision IN ('approved', 'rejected', 'passed', 'failed')),
    note text,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sign_offs_by_task ON prepaid.sign_offs (task_id, sign_off_id);
CREATE TRIGGER sign_offs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.sign_offs
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
-- Also for a session that plays a replica (session_replication_role), in which triggers rest.
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER sign_offs_append_only;
ALTER TABLE prepaid.audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;

-- A sign-off is made by the person whose name it has, and for their own team: not by the pipeline,
-- and not by the owner of the tables in somebody's name.
CREATE FUNCTION prepaid.only_people_sign() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    SELECT n.decided_by, k.task_id, k.assigned_role INTO wrong
    FROM new_rows n LEFT JOIN prepaid.tasks k USING (task_id)
    WHERE n.decided_by <> prepaid.acting_person() OR k.assigned_role NOT IN (
        SELECT m.team FROM prepaid.team_members m WHERE m.person = prepaid.acting_person())
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'no sign-off of task % by %: only a person of % signs it, under their own name',
            wrong.task_id, wrong.decided_by, wrong.assigned_role;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER only_people_sign AFTER INSERT ON prepaid.sign_offs
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.only_people_sign();
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER only_people_sign;

-- Who was asked to do a task, by whom and why; rows are only ever added.
CREATE TABLE prepaid.task_assignments (
    assignment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL REFERENCES prepaid.tasks,
    assigned_to text,
    note text,
    assigned_by text NOT NULL,
    assigned_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX task_assignments_by_task ON prepaid.task_assignments (task_id);
CREATE TRIGGER task_assignments_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON prepaid.task_assignments FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

CREATE FUNCTION prepaid.audit_task_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT CASE n.status WHEN 'Withdrawn' THEN 'task_withdrawn' WHEN 'Open' THEN 'task_first_approved'
                ELSE 'task_decided' END,
           n.service_plan_id, 'task', n.task_id, coalesce(o.decision, o.status),
           CASE n.status WHEN 'Done' THEN n.decision ELSE n.status END, n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE (n.status, n.decision) IS DISTINCT FROM (o.status, o.decision)
       OR n.status = 'Open' AND n.first_approved_by IS DISTINCT FROM o.first_approved_by;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'task_reassigned', n.service_plan_id, 'task', n.task_id, o.assigned_to, n.assigned_to, n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE n.assigned_to IS DISTINCT FROM o.assigned_to;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_task_status AFTER UPDATE ON prepaid.tasks
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_task_status();

-- 08_transitions.sql
-- The state machines. Whatever is not written here is refused, whoever asks.

CREATE FUNCTION prepaid.check_plan_opening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'service plan of subscription % cannot start as %: the pipeline opens plans as Pending',
        NEW.subscription_id, NEW.status;
END $$;
CREATE TRIGGER check_plan_opening BEFORE INSERT ON prepaid.service_plans
    FOR EACH ROW WHEN (NEW.origin = 'pipeline' AND NEW.status <> 'Pending')
    EXECUTE FUNCTION prepaid.check_plan_opening();

CREATE FUNCTION prepaid.check_plan_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'Pending' AND NEW.status = 'Processing' AND NEW.invoiced_at IS NULL
        OR OLD.status = 'Processing' AND NEW.status = 'Pending'
        OR OLD.status = 'Active' AND NEW.status = 'Expired'
        OR OLD.status IN ('Pending', 'Processing', 'Active') AND NEW.status = 'Cancelled'
    THEN
        RETURN NEW;
    END IF;
    IF OLD.status = 'Pending' AND NEW.status = 'Active' THEN
        IF EXISTS (SELECT FROM prepaid.invoices i
                   WHERE i.service_plan_id = NEW.service_plan_id AND i.status = 'Paid') THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'service plan % cannot become Active: it has no paid invoice',
            NEW.service_plan_id;
    END IF;
    RAISE EXCEPTION 'service plan % cannot go from % to %', NEW.service_plan_id, OLD.status, NEW.status;
END $$;
CREATE TRIGGER check_plan_transition BEFORE UPDATE ON prepaid.service_plans
    FOR EACH ROW WHEN (OLD.status <> NEW.status)
    EXECUTE FUNCTION prepaid.check_plan_transition();

-- A plan that is cancelled before activation takes what hangs on it along: nobody is asked to pay or
-- to verify any more, and money that has arrived for it goes to finance as a task.
CREATE FUNCTION prepaid.close_cancelled_plan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = NEW.service_plan_id AND kind = 'payment_verification' AND status = 'Open';
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = NEW.service_plan_id AND released_at IS NULL;
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on)
    SELECT 'payment_review', NEW.service_plan_id, i.invoice_id, t.transaction_id, 'finance',
           coalesce(prepaid.as_of(), current_date)
    FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
    WHERE i.service_plan_id = NEW.service_plan_id AND t.outcome = 'matched'
    ON CONFLICT DO NOTHING;
    UPDATE prepaid.transactions t
    SET outcome = 'parked', outcome_reason = 'the plan was cancelled after the payment'
    FROM prepaid.invoices i
    WHERE i.service_plan_id = NEW.service_plan_id AND i.status = 'Open'
      AND t.invoice_id = i.invoice_id AND t.outcome = 'matched';
    UPDATE prepaid.invoices SET status = 'Void'
    WHERE service_plan_id = NEW.service_plan_id AND status = 'Open';
    RETURN NULL;
END $$;
CREATE TRIGGER close_cancelled_plan AFTER UPDATE ON prepaid.service_plans
    FOR EACH ROW WHEN (OLD.status IN ('Pending', 'Processing') AND NEW.status = 'Cancelled')
    EXECUTE FUNCTION prepaid.close_cancelled_plan();

CREATE FUNCTION prepaid.check_invoice_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'Open' AND NEW.status = 'Void' THEN
        RETURN NEW;
    END IF;
    IF NOT (OLD.status = 'Open' AND NEW.status = 'Paid') THEN
        RAISE EXCEPTION 'invoice % cannot go from % to %', NEW.invoice_number, OLD.status, NEW.status;
    END IF;
    -- A full discount leaves nothing to pay, so nothing to verify.
    IF NEW.total = 0 THEN
        RETURN NEW;
    END IF;
    PERFORM FROM prepaid.transactions t
    WHERE t.transaction_id = NEW.transaction_id AND t.outcome = 'matched'
      AND t.invoice_id = NEW.invoice_id AND t.status = 'Success'
      AND t.amount = NEW.total AND t.currency = NEW.currency;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invoice % cannot be Paid: no matched payment record of % %',
            NEW.invoice_number, NEW.total, NEW.currency;
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
CREATE TRIGGER check_invoice_transition BEFORE UPDATE ON prepaid.invoices
    FOR EACH ROW WHEN (OLD.status <> NEW.status)
    EXECUTE FUNCTION prepaid.check_invoice_transition();
-- An invoice is a document: after issue its parties and amounts stay. Corrections are new documents.
CREATE FUNCTION prepaid.refuse_invoice_edit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'invoice % is issued: number, plan, customer, amounts and date stay as they are',
        OLD.invoice_number;
END $$;
CREATE TRIGGER refuse_invoice_edit BEFORE UPDATE ON prepaid.invoices
    FOR EACH ROW WHEN ((OLD.invoice_number, OLD.service_plan_id, OLD.customer_id, OLD.currency,
                        OLD.net, OLD.tax, OLD.total, OLD.issued_on)
        IS DISTINCT FROM (NEW.invoice_number, NEW.service_plan_id, NEW.customer_id, NEW.currency,
                          NEW.net, NEW.tax, NEW.total, NEW.issued_on))
    EXECUTE FUNCTION prepaid.refuse_invoice_edit();
CREATE TRIGGER invoices_stay BEFORE DELETE OR TRUNCATE ON prepaid.invoices
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
CREATE TRIGGER invoice_lines_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.invoice_lines
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

-- 09_emails.sql
-- The outbox. Step 10 orders a mail here; the job send_emails renders, stores and sends it.

CREATE TABLE prepaid.emails (
    email_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_plan_id bigint NOT NULL REFERENCES prepaid.service_plans,
    template text NOT NULL,
    -- What makes two mails of one template for one plan different (the step, or a reminder's day).
    occasion text NOT NULL,
    recipient text NOT NULL,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'sending', 'sent', 'failed')),
    -- The bytes are stored before the first attempt: every attempt sends the same mail.
    message_id text UNIQUE,
    content bytea,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_until timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at timestamptz,
    UNIQUE (service_plan_id, template, occasion),
    -- A mail that could not even be written has failed without content.
    CHECK (status IN ('pending', 'failed') OR content IS NOT NULL),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX emails_to_send ON prepaid.emails (next_attempt_at, email_id)
    WHERE status IN ('pending', 'sending');

CREATE FUNCTION prepaid.audit_email_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'email_' || n.status, n.service_plan_id, 'email', n.email_id, o.status, n.status,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.status <> o.status AND n.status IN ('sent', 'failed');
    RETURN NULL;
END $$;
CREATE TRIGGER audit_email_status AFTER UPDATE ON prepaid.emails
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_email_status();

<<<<<<< HEAD
=======
-- Sends failed mails again under the acting person's name, all or nothing: what was written is sent
-- as it was, the same bytes with the same Message-ID. Returns how many.
CREATE FUNCTION prepaid.resend_emails(email_ids bigint[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    resent integer;
    refused record;
BEGIN
    IF NOT prepaid.is_in_team(person, 'customer_success', 'engineering') THEN
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

>>>>>>> e5a93ca (Two people approve above the limit, four eyes, accounts and sessions of the pages, views for them; rights are a table that a test compares with the catalogue)
-- 10_queues.sql
-- Which plans wait for the pipeline. Claims and sensors read the same two views, so that a sensor
-- never asks for a run that would find nothing, and never misses one.

-- Steps 1-5. Whether the plan is due (lead days before its start) depends on the business date.
CREATE VIEW prepaid.ready_to_invoice AS
SELECT p.service_plan_id, p.planned_start, p.term_days, p.batch_id
FROM prepaid.service_plans p
WHERE p.invoiced_at IS NULL AND p.status IN ('Pending', 'Processing')
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = p.batch_id AND b.leased_until > clock_timestamp())
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL);

-- Steps 6-11: invoiced, the record matched and the payment approved (or nothing to pay).
CREATE VIEW prepaid.ready_to_settle AS
SELECT p.service_plan_id, p.batch_id
FROM prepaid.service_plans p
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.invoiced_at IS NOT NULL AND p.settled_at IS NULL AND p.status IN ('Pending', 'Active')
  AND (i.status = 'Paid' OR i.total = 0 OR (
      EXISTS (SELECT FROM prepaid.transactions t
              WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched')
      AND EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
                    AND k.status <> 'Withdrawn' AND k.decision = 'approved')))
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = p.batch_id AND b.leased_until > clock_timestamp())
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL);

<<<<<<< HEAD
=======
-- Invoices that nobody has begun to pay, so that the customer is reminded and at last the plan is
-- cancelled. Not while anything about the payment is in our own hands: the plan held, a record that
-- matches, waits or was not judged yet, a question to finance, or an approval that came first.
CREATE VIEW prepaid.unpaid_invoices AS
SELECT i.invoice_id, i.invoice_number, p.service_plan_id, p.email,
       prepaid.due_on(i.issued_on, p.planned_start) AS due_on
FROM prepaid.service_plans p
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Open'
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
                        AND (k.decision = 'approved' OR k.first_approved_by IS NOT NULL)));

>>>>>>> e5a93ca (Two people approve above the limit, four eyes, accounts and sessions of the pages, views for them; rights are a table that a test compares with the catalogue)
-- 11_sign_offs.sql
-- How people decide: one function, and over it the two sign-off tables (updatable views).

-- Four eyes: who may not decide on which task of money, and why. Who opened or changed the plan, its
-- invoice or its payment, and who last changed the data of the customer or the subscription; the audit
-- log knows them. An import is nobody's. (The hold of a rejection that is released while its task
-- stands was released by deciding.)
CREATE VIEW prepaid.four_eyes AS
SELECT k.task_id, hand.person, hand.what
FROM prepaid.tasks k
JOIN prepaid.service_plans p USING (service_plan_id)
CROSS JOIN LATERAL (
    SELECT a.actor AS person, CASE a.event
               WHEN 'hold_released' THEN 'released a hold of the plan'
               WHEN 'transaction_assigned' THEN 'assigned the payment to the invoice'
               WHEN 'invoice_reissue_requested' THEN 'had the invoice issued again'
               WHEN 'service_plan_opened' THEN 'opened the plan'
               WHEN 'change_requested' THEN 'changed the plan'
               WHEN 'cancellation_requested' THEN 'cancelled the plan'
               ELSE format('changed the %s (%s)', replace(a.entity, '_', ' '), a.event) END AS what
    FROM prepaid.audit_log a
    WHERE a.service_plan_id = k.service_plan_id
      AND (a.entity IN ('service_plan', 'invoice', 'transaction', 'request', 'term', 'credit_note')
           OR a.event = 'hold_released' AND NOT (a.before = 'payment_rejected' AND a.at > k.opened_at))
    UNION ALL
    SELECT last.actor, 'last changed the customer''s data'
    FROM (SELECT a.actor FROM prepaid.audit_log a
          WHERE a.service_plan_id IS NULL AND a.entity = 'customer' AND a.entity_id = p.customer_id
          ORDER BY a.audit_id DESC LIMIT 1) last
    UNION ALL
    SELECT last.actor, 'last changed the subscription'
    FROM (SELECT a.actor FROM prepaid.audit_log a
          WHERE a.service_plan_id IS NULL AND a.entity = 'subscription'
            AND a.entity_id = p.subscription_id
          ORDER BY a.audit_id DESC LIMIT 1) last
    UNION ALL
    SELECT last.actor, 'last changed a discount of the subscription'
    FROM prepaid.discounts d
    CROSS JOIN LATERAL (SELECT a.actor FROM prepaid.audit_log a
          WHERE a.service_plan_id IS NULL AND a.entity = 'discount' AND a.entity_id = d.discount_id
          ORDER BY a.audit_id DESC LIMIT 1) last
    WHERE d.subscription_id = p.subscription_id
) hand
WHERE k.kind IN ('payment_verification', 'payment_refund');

-- Decides tasks for the person who is acting (the role that is set, or the session's user).
-- All or nothing. Returns how many decisions were recorded; the same decision again is not one. Above
-- the limit the first approval leaves the task Open; a rejection needs one person.
CREATE FUNCTION prepaid.decide_tasks(task_ids bigint[], new_decision text, new_note text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    teams text[] := ARRAY(SELECT m.team FROM prepaid.team_members m WHERE m.person = acting_person());
    recorded integer;
    refused record;
BEGIN
    -- In a session of one's own prepaid.actor could say anything: the audit log names the person.
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id FOR UPDATE;

    -- Look-ups by key (OFFSET 0 keeps the planner from turning them round): the view's trigger calls
    -- this once per row, and a scan of all tasks each time would make 3,000 approvals quadratic.
    SELECT * INTO refused FROM (
        SELECT asked.task_id, CASE
            WHEN k.task_id IS NULL THEN 'there is no such task'
            WHEN k.assigned_role <> ALL (teams)
                THEN format('it belongs to %s, and %s is not in that team', k.assigned_role, person)
            WHEN k.status = 'Withdrawn'
                THEN 'it was withdrawn; look for the new task of the same invoice'
            WHEN new_decision IS NULL
                OR new_decision NOT IN ('approved', 'rejected', 'passed', 'failed')
                OR (k.kind LIKE 'payment%') <> (new_decision IN ('approved', 'rejected'))
                THEN format('the decision must be %s, not %s',
                    CASE WHEN k.kind LIKE 'payment%' THEN 'approved or rejected'
                         ELSE 'passed or failed' END, coalesce(quote_literal(new_decision), 'empty'))
            WHEN new_decision IN ('rejected', 'failed') AND coalesce(new_note, '') !~ '\S'
                THEN format('%s needs a note that says why', new_decision)
            WHEN i.status <> 'Open' AND k.kind = 'payment_verification'
                THEN format('invoice %s is already %s', i.invoice_number, i.status)
            WHEN k.closed_at IS NOT NULL THEN 'it is closed; use its follow-up task'
            WHEN new_decision = 'approved' AND k.status = 'Open' AND k.first_approved_by = person
                THEN format('%s has approved it already, as the first of two: somebody else approves '
                            'it next', person)
            WHEN own.what IS NOT NULL THEN format('%s %s: somebody else decides', person, own.what)
            END AS reason
        FROM unnest(task_ids) asked (task_id)
        LEFT JOIN LATERAL (SELECT * FROM prepaid.tasks
                           WHERE task_id = asked.task_id OFFSET 0) k ON true
        LEFT JOIN LATERAL (SELECT * FROM prepaid.invoices
                           WHERE invoice_id = k.invoice_id OFFSET 0) i ON true
        LEFT JOIN LATERAL (SELECT e.what FROM prepaid.four_eyes e
                           WHERE e.task_id = asked.task_id AND e.person = acting_person()
                           LIMIT 1) own ON true
    ) judged
    WHERE reason IS NOT NULL ORDER BY task_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task % cannot be decided: %', refused.task_id, refused.reason;
    END IF;

    WITH decided AS (
        UPDATE prepaid.tasks k
        SET status = CASE WHEN step.is_first THEN 'Open' ELSE 'Done' END,
            decision = CASE WHEN NOT step.is_first THEN new_decision END,
            note = CASE WHEN NOT step.is_first THEN new_note END,
            decided_by = CASE WHEN NOT step.is_first THEN person END,
            decided_at = CASE WHEN NOT step.is_first THEN clock_timestamp() END,
            first_approved_by = CASE WHEN step.is_first THEN person
                                     WHEN new_decision = 'approved' THEN k.first_approved_by END,
            first_approved_at = CASE WHEN step.is_first THEN clock_timestamp()
                                     WHEN new_decision = 'approved' THEN k.first_approved_at END
        FROM (
            SELECT t.task_id, two.needed, two.needed AND t.first_approved_by IS NULL AS is_first
            FROM (SELECT DISTINCT task_id FROM unnest(task_ids) asked (task_id)) asked
            CROSS JOIN LATERAL (SELECT * FROM prepaid.tasks
                                WHERE task_id = asked.task_id OFFSET 0) t
            CROSS JOIN LATERAL (SELECT new_decision = 'approved' AND EXISTS (
                SELECT FROM prepaid.two_person_tasks WHERE task_id = t.task_id OFFSET 0) AS needed) two
        ) step
        WHERE k.task_id = step.task_id
          AND (k.decision, k.note, k.decided_by) IS DISTINCT FROM (new_decision, new_note, person)
          -- Two have approved: a third approval adds nothing.
          AND NOT (k.decision = 'approved' AND new_decision = 'approved'
                   AND (step.needed OR k.first_approved_by IS NOT NULL)) IS TRUE
        RETURNING k.task_id
    )
    INSERT INTO prepaid.sign_offs (task_id, decision, note, decided_by)
    SELECT task_id, new_decision, new_note, person FROM decided ORDER BY task_id;
    GET DIAGNOSTICS recorded = ROW_COUNT;

    IF new_decision = 'rejected' THEN
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT i.service_plan_id, 'payment_rejected',
            format('%s rejected the payment of invoice %s: %s. Clear it up with the customer; '
                   'releasing the hold asks finance again.', person, i.invoice_number, new_note)
        FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'payment_verification'
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
    ELSIF new_decision = 'approved' THEN
        -- A later approval of the same task (the second one, where it takes two) replaces the
        -- rejection, and with it the hold.
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = 'approved after all'
        FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'payment_verification' AND k.status = 'Done'
          AND h.service_plan_id = i.service_plan_id AND h.reason_code = 'payment_rejected'
          AND h.released_at IS NULL;
    END IF;
    RETURN recorded;
END $$;

-- Releases every live hold of a plan under the acting person's name; the plan goes on where it was.
-- A released rejection opens a new verification task on the same invoice. Returns the holds released.
CREATE FUNCTION prepaid.release_holds(plan bigint, release_note text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    released integer;
    rejected boolean;
BEGIN
    IF NOT prepaid.is_in_team(person, 'finance', 'customer_success', 'engineering') THEN
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
    IF rejected AND NOT prepaid.is_in_team(person, 'finance') THEN
        RAISE EXCEPTION '% may not release a rejected payment: only finance can', person;
    END IF;
    IF rejected THEN
        UPDATE prepaid.tasks k SET status = 'Withdrawn'
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND k.invoice_id = i.invoice_id
          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
          AND k.decision IS DISTINCT FROM 'approved';
        INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on)
        SELECT 'payment_verification', plan, i.invoice_id, 'finance',
               coalesce(prepaid.as_of(), current_date)
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND i.total > 0
          AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn');
    END IF;
    RETURN released;
END $$;

-- What a finance officer needs to decide: the invoice, the provider's record beside it, and in words
-- what differs. UPDATE … SET decision = 'approved' | 'rejected', note = '…' WHERE task_id = …
CREATE VIEW prepaid.payment_verifications AS
SELECT k.task_id, k.status, k.opened_on, i.invoice_number, p.service_plan_id,
       c.customer_ref, p.customer_name, p.plan_name, p.kind, i.currency, i.net, i.tax, i.total,
       r.provider AS record_provider, r.provider_ref AS record_ref, r.status AS record_status,
       r.amount AS record_amount, r.currency AS record_currency, r.occurred_at AS record_at,
       d.difference IS NULL AS agrees, d.difference,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to,
       CASE WHEN i.payable > l.amount THEN 2 ELSE 1 END AS approvals_needed,
       k.first_approved_by, k.first_approved_at, w.why_not, w.why_not IS NULL AS may_decide
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.service_plans p ON p.service_plan_id = i.service_plan_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
LEFT JOIN LATERAL (
    SELECT t.* FROM prepaid.transactions t WHERE t.invoice_number = i.invoice_number
    ORDER BY t.outcome = 'matched' DESC NULLS LAST, t.status = 'Success' DESC NULLS LAST,
             t.occurred_at DESC NULLS LAST, t.transaction_id
    LIMIT 1
) r ON true
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN r.transaction_id IS NULL THEN 'no record from a payment provider yet'
        WHEN r.status IS DISTINCT FROM 'Success'
            THEN format('the record says %s', coalesce(r.status, 'nothing'))
        WHEN r.currency IS DISTINCT FROM i.currency
            THEN format('the record is in %s, the invoice in %s', coalesce(r.currency, 'no currency'), i.currency)
        WHEN r.amount IS DISTINCT FROM i.total
            THEN format('the record is over %s, the invoice over %s', coalesce(r.amount::text, 'nothing'), i.total)
        WHEN r.customer_ref <> c.customer_ref
            THEN format('the record names customer %s, the invoice %s', r.customer_ref, c.customer_ref)
        WHEN r.outcome NOT IN ('matched') THEN r.outcome_reason
        ELSE (SELECT format('a later record of the same payment says %s', t.status)
              FROM prepaid.transactions t
              WHERE t.provider = r.provider AND t.provider_ref = r.provider_ref
                AND t.status IN ('Failed', 'Refunded', 'Chargeback') AND t.occurred_at >= r.occurred_at
              ORDER BY t.occurred_at DESC LIMIT 1)
    END AS difference
) d
LEFT JOIN prepaid.approval_limits l ON l.currency = i.currency
-- Why the acting person may not approve it; decide_tasks says the same. (The first of two may still
-- reject.)
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN i.status <> 'Open' THEN format('invoice %s is already %s', i.invoice_number, i.status)
        WHEN NOT EXISTS (SELECT FROM prepaid.team_members m
                         WHERE m.team = 'finance' AND m.person = prepaid.acting_person())
            THEN 'only finance decides on payments'
        WHEN k.status = 'Open' AND k.first_approved_by = prepaid.acting_person()
            THEN 'you have approved it already, as the first of two'
        ELSE (SELECT 'you ' || e.what FROM prepaid.four_eyes e
              WHERE e.task_id = k.task_id AND e.person = prepaid.acting_person() LIMIT 1)
    END AS why_not OFFSET 0
) w
WHERE k.kind = 'payment_verification' AND k.status <> 'Withdrawn';

-- What customer success needs: the plan's features to look at.
-- UPDATE … SET decision = 'passed' | 'failed', note = '…' WHERE task_id = …
CREATE VIEW prepaid.quality_checks AS
SELECT k.task_id, k.kind, k.status, k.opened_on, p.service_plan_id, c.customer_ref, p.customer_name,
       p.plan_name, p.start_date, p.end_date,
       concat_ws(', ', p.plan_name, (
           SELECT string_agg(a ->> 'name', ', ' ORDER BY n)
           FROM jsonb_array_elements(p.addons) WITH ORDINALITY e (a, n))) AS features,
       earlier.note AS what_failed,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to
FROM prepaid.tasks k
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.tasks earlier ON earlier.task_id = k.parent_task_id
WHERE k.kind IN ('quality_check', 'quality_follow_up') AND k.status <> 'Withdrawn';

CREATE FUNCTION prepaid.decide_from_view() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) - 'decision' - 'note' <> to_jsonb(OLD) - 'decision' - 'note' THEN
        RAISE EXCEPTION 'only decision and note can be set in %', TG_TABLE_NAME;
    END IF;
    PERFORM prepaid.decide_tasks(ARRAY[OLD.task_id], NEW.decision, NEW.note);
    RETURN NEW;
END $$;
CREATE TRIGGER decide INSTEAD OF UPDATE ON prepaid.payment_verifications
    FOR EACH ROW EXECUTE FUNCTION prepaid.decide_from_view();
CREATE TRIGGER decide INSTEAD OF UPDATE ON prepaid.quality_checks
    FOR EACH ROW EXECUTE FUNCTION prepaid.decide_from_view();

-- 12_revenue.sql
-- Monthly figures and the reports made from them. A month is named by its first day.

CREATE SCHEMA revenue;

-- Figures are staged under their run, validated there, and only then published in one transaction:
-- a failed validation leaves the last good figures in place. Staging tables have no constraints,
-- so that a bad row arrives where the validation names it, and are unlogged: a run that a crash
-- interrupts starts again anyway.

-- Which months have figures, and as of which business date. An empty month has a row here only.
CREATE TABLE revenue.months (
    month date PRIMARY KEY CHECK (extract(day FROM month) = 1),
    as_of date NOT NULL,
    run_id text NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (as_of >= month)
);
CREATE UNLOGGED TABLE revenue.months_staging (
    run_id text NOT NULL,
    month date,
    as_of date,
    staged_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Monthly recurring revenue on the month's last day (the running month: as of its cut-off).
-- Amounts are not rounded; they are when shown, so that their sums are right.
CREATE TABLE revenue.mrr (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    plan_code text NOT NULL REFERENCES prepaid.plans (plan_code),
    active_plans bigint NOT NULL CHECK (active_plans > 0),
    mrr numeric NOT NULL CHECK (mrr >= 0),
    PRIMARY KEY (month, currency, plan_code)
);
CREATE UNLOGGED TABLE revenue.mrr_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    plan_code text,
    active_plans bigint,
    mrr numeric
);

-- What changed between two month ends, per customer and currency, added up.
CREATE TABLE revenue.mrr_movements (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    movement text NOT NULL
        CHECK (movement IN ('new', 'reactivation', 'expansion', 'contraction', 'churn')),
    customers bigint NOT NULL CHECK (customers > 0),
    amount numeric NOT NULL,
    PRIMARY KEY (month, currency, movement),
    CHECK (CASE WHEN movement IN ('contraction', 'churn') THEN amount < 0 ELSE amount > 0 END)
);
CREATE UNLOGGED TABLE revenue.mrr_movements_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    movement text,
    customers bigint,
    amount numeric
);

-- Start and end of each month as the movements since the very first term add up to: the identity
-- start + movements = end is checked against revenue.mrr before anything is published.
CREATE TABLE revenue.mrr_bridge (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    opening_mrr numeric NOT NULL CHECK (opening_mrr >= 0),
    closing_mrr numeric NOT NULL CHECK (closing_mrr >= 0),
    opening_customers bigint NOT NULL CHECK (opening_customers >= 0),
    closing_customers bigint NOT NULL CHECK (closing_customers >= 0),
    PRIMARY KEY (month, currency)
);
CREATE UNLOGGED TABLE revenue.mrr_bridge_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    opening_mrr numeric,
    closing_mrr numeric,
    opening_customers bigint,
    closing_customers bigint
);

-- Terms that began, in the month of the later of start and activation. net_amount is the whole
-- term's price without tax, one-time fees included.
CREATE TABLE revenue.plan_activations (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    plan_code text NOT NULL REFERENCES prepaid.plans (plan_code),
    kind text NOT NULL CHECK (kind IN ('new', 'renewal', 'reactivation')),
    plans bigint NOT NULL CHECK (plans > 0),
    net_amount numeric NOT NULL CHECK (net_amount >= 0),
    PRIMARY KEY (month, currency, plan_code, kind)
);
CREATE UNLOGGED TABLE revenue.plan_activations_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    plan_code text,
    kind text,
    plans bigint,
    net_amount numeric
);

-- The last month's terms counted one by one instead of added up from their starts and ends, from
-- the same snapshot: what the running sums must agree with.
CREATE UNLOGGED TABLE revenue.control_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    active_plans bigint,
    mrr numeric,
    activations bigint
);

-- A month's report: version 0 while the month is preliminary (it is replaced), then 1, and one
-- more whenever later truth differs. A published version never changes.
CREATE TABLE revenue.report_versions (
    month date NOT NULL REFERENCES revenue.months,
    version integer NOT NULL CHECK (version >= 0),
    cut_off date NOT NULL,
    note text NOT NULL,
    run_id text NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (month, version)
);

-- The figures as shown in the report, rounded to the currency's decimals; figures holds the tables
-- behind the headline (bridge, plans, activations), so that an old version can be opened again.
CREATE TABLE revenue.monthly_report (
    month date NOT NULL,
    currency text NOT NULL REFERENCES prepaid.currencies,
    version integer NOT NULL,
    new_plans bigint NOT NULL CHECK (new_plans >= 0),
    renewals bigint NOT NULL CHECK (renewals >= 0),
    reactivations bigint NOT NULL CHECK (reactivations >= 0),
    opening_mrr numeric NOT NULL CHECK (opening_mrr >= 0),
    mrr numeric NOT NULL CHECK (mrr >= 0),
    active_plans bigint NOT NULL CHECK (active_plans >= 0),
    customers bigint NOT NULL CHECK (customers >= 0),
    figures jsonb NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (month, currency, version),
    FOREIGN KEY (month, version) REFERENCES revenue.report_versions ON DELETE CASCADE
);
CREATE UNLOGGED TABLE revenue.monthly_report_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    new_plans bigint,
    renewals bigint,
    reactivations bigint,
    opening_mrr numeric,
    mrr numeric,
    active_plans bigint,
    customers bigint,
    figures jsonb
);

CREATE FUNCTION revenue.refuse_report_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'version % of the report for % is published: it stays, a correction is a new version',
        OLD.version, to_char(OLD.month, 'YYYY-MM');
END $$;
CREATE TRIGGER published_versions_stay BEFORE UPDATE OR DELETE ON revenue.report_versions
    FOR EACH ROW WHEN (OLD.version > 0) EXECUTE FUNCTION revenue.refuse_report_change();
CREATE TRIGGER published_reports_stay BEFORE UPDATE OR DELETE ON revenue.monthly_report
    FOR EACH ROW WHEN (OLD.version > 0) EXECUTE FUNCTION revenue.refuse_report_change();

-- One run's staged rows, the run being the session's (setting prepaid.run_id): what is validated.
CREATE VIEW revenue.staged_months AS
    SELECT * FROM revenue.months_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_mrr AS
    SELECT * FROM revenue.mrr_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_mrr_movements AS
    SELECT * FROM revenue.mrr_movements_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_mrr_bridge AS
    SELECT * FROM revenue.mrr_bridge_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_plan_activations AS
    SELECT * FROM revenue.plan_activations_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_control AS
    SELECT * FROM revenue.control_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_monthly_report AS
    SELECT * FROM revenue.monthly_report_staging WHERE run_id = prepaid.run_id();

-- 14_desk.sql
-- The sign-off pages: signing in and sessions. The pages have a database login of their own, in the
-- role desk: it may call these functions and take the role of a person, and has no other right.

-- The browser has the token; here is its SHA-256, so that nobody who reads this table has a session.
CREATE TABLE prepaid.desk_sessions (
    token_hash bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    person text NOT NULL REFERENCES prepaid.desk_accounts,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    idle_seconds integer NOT NULL CHECK (idle_seconds > 0)
);
CREATE INDEX desk_sessions_by_person ON prepaid.desk_sessions (person);

-- Clocks here are real time, never the business date: they are about access.

CREATE FUNCTION prepaid.note_access(event text, person text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prepaid.audit_log (event, entity, detail, actor, run_id)
    VALUES (event, 'person', person, prepaid.actor(), prepaid.run_id());
$$;

-- What is needed to sign somebody in; no row for a name that is nobody's. may_try is false while the
-- account is locked or disabled, or in no team.
CREATE FUNCTION prepaid.desk_account(name text)
RETURNS TABLE (person text, password_hash text, failed integer, locked_until timestamptz,
               disabled boolean, team text, may_try boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT a.person, a.password_hash, a.failed, a.locked_until, a.disabled, m.team,
           m.team IS NOT NULL AND coalesce(a.locked_until <= clock_timestamp(), true)
    FROM prepaid.desk_accounts a
    LEFT JOIN LATERAL (SELECT min(m.team) AS team FROM prepaid.team_members m
                       WHERE m.person = a.person) m ON true
    WHERE a.person = desk_account.name
$$;

-- The one person with this address, for a sign-in elsewhere (OpenID Connect); null if there is none,
-- or more than one.
CREATE FUNCTION prepaid.desk_person(address text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT min(a.person) FROM prepaid.desk_accounts a
    WHERE lower(a.email) = lower(address) AND NOT a.disabled HAVING count(*) = 1
$$;

-- Notes a wrong password. From the fifth in a row on, the account is locked for a quarter of an hour
-- after each: at most 5 + 96 guesses a day. Returns until when it is locked.
CREATE FUNCTION prepaid.desk_failed(name text) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    locked timestamptz;
BEGIN
    UPDATE prepaid.desk_accounts a
    SET failed = a.failed + 1,
        locked_until = CASE WHEN a.failed + 1 >= 5 THEN clock_timestamp() + interval '15 minutes'
                       ELSE a.locked_until END
    WHERE a.person = name
    RETURNING a.locked_until INTO locked;
    IF locked > clock_timestamp() THEN
        PERFORM prepaid.note_access('account_locked', name);
    END IF;
    RETURN locked;
END $$;

-- Opens a session for somebody whose password (or other sign-in) was right.
CREATE FUNCTION prepaid.desk_open_session(
    new_token_hash bytea, name text, idle_seconds integer, absolute_seconds integer
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    -- A wrong password at this very moment waits; a locked account stays locked.
    PERFORM FROM prepaid.desk_accounts a WHERE a.person = name FOR UPDATE;
    IF NOT coalesce((SELECT may_try FROM prepaid.desk_account(name)), false) THEN
        RAISE EXCEPTION '% cannot sign in: no account, locked, disabled or in no team', name;
    END IF;
    UPDATE prepaid.desk_accounts a SET failed = 0, locked_until = NULL
    WHERE a.person = name AND (a.failed > 0 OR a.locked_until IS NOT NULL);
    DELETE FROM prepaid.desk_sessions s
    WHERE s.person = name AND s.expires_at < clock_timestamp() - interval '30 days';
    INSERT INTO prepaid.desk_sessions (token_hash, person, expires_at, idle_seconds)
    VALUES (new_token_hash, name, clock_timestamp() + make_interval(secs => absolute_seconds),
            desk_open_session.idle_seconds);
    PERFORM prepaid.note_access('signed_in', name);
END $$;

-- Whose session it is, with the person's teams; no row when it has ended (idle, over, revoked) or the
-- person was disabled, left the team or lost the role. Asking keeps it awake.
CREATE FUNCTION prepaid.desk_session(token bytea)
RETURNS TABLE (person text, team text, teams text[])
LANGUAGE sql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    WITH seen AS (
        UPDATE prepaid.desk_sessions s SET last_seen_at = clock_timestamp()
        WHERE s.token_hash = token AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
          AND s.last_seen_at > clock_timestamp() - make_interval(secs => s.idle_seconds)
        RETURNING s.person
    )
    SELECT seen.person, min(m.team), array_agg(m.team ORDER BY m.team)
    FROM seen JOIN prepaid.team_members m ON m.person = seen.person
    GROUP BY seen.person
$$;

CREATE FUNCTION prepaid.desk_end_session(token bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    UPDATE prepaid.desk_sessions SET revoked_at = clock_timestamp()
    WHERE token_hash = token AND revoked_at IS NULL
$$;

-- Ends all sessions of a person; returns how many there were.
CREATE FUNCTION prepaid.desk_end_sessions(name text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    ended integer;
BEGIN
    UPDATE prepaid.desk_sessions s SET revoked_at = clock_timestamp()
    WHERE s.person = name AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp();
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

-- For 'prepaid user', not for the pages: a new password ends all sessions and the lock.
CREATE FUNCTION prepaid.set_password(name text, hash text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.desk_accounts AS a (person, password_hash) VALUES (name, hash)
    ON CONFLICT (person) DO UPDATE SET password_hash = hash, failed = 0, locked_until = NULL;
    PERFORM prepaid.desk_end_sessions(name);
    PERFORM prepaid.note_access('password_set', name);
END $$;
CREATE FUNCTION prepaid.set_disabled(name text, disable boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.desk_accounts AS a (person, disabled) VALUES (name, disable)
    ON CONFLICT (person) DO UPDATE SET disabled = disable, failed = 0, locked_until = NULL;
    PERFORM prepaid.desk_end_sessions(name);
    PERFORM prepaid.note_access(CASE WHEN disable THEN 'user_disabled' ELSE 'user_enabled' END, name);
END $$;

-- 15_desk_views.sql
-- What the pages show beside the two sign-off tables: how much waits, how long it takes, what is
-- parked or held, what was decided, and a plan's whole story.

-- Open tasks per team and kind, for the acting person's own teams (engineering sees all).
CREATE VIEW prepaid.desk_overview AS
SELECT k.assigned_role AS team, k.kind, count(*) AS open, min(k.opened_on) AS oldest,
       count(*) FILTER (WHERE k.due_on < prepaid.today()) AS overdue,
       count(*) FILTER (WHERE k.assigned_to = prepaid.acting_person()) AS mine
FROM prepaid.tasks k
WHERE k.status = 'Open' AND EXISTS (
    SELECT FROM prepaid.team_members m
    WHERE m.person = prepaid.acting_person() AND m.team IN (k.assigned_role, 'engineering'))
GROUP BY k.assigned_role, k.kind;

-- Hours from a task's opening to its decision (of two: the second), by the month of the decision.
CREATE VIEW prepaid.sign_off_times AS
SELECT date_trunc('month', prepaid.business_date(k.decided_at))::date AS month, k.kind,
       count(*) AS decided,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY k.decided_at - k.opened_at) AS median,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY k.decided_at - k.opened_at) AS p90
FROM prepaid.tasks k
WHERE k.decided_at IS NOT NULL
GROUP BY 1, 2;

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
       k.decision, k.note, k.decided_by, k.decided_at
FROM prepaid.tasks k
JOIN prepaid.transactions t USING (transaction_id)
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('invoice_number', p.invoice_number,
               'customer_ref', p.customer_ref, 'customer_name', p.customer_name,
               'because', p.because) ORDER BY p.invoice_number) AS suggestions
    FROM prepaid.payment_suggestions p WHERE p.transaction_id = t.transaction_id OFFSET 0) s ON true
WHERE k.kind = 'payment_review' AND k.status <> 'Withdrawn';

-- Plans that wait for a person to put something right. The text says what can be done.
CREATE VIEW prepaid.held_plans AS
SELECT h.hold_id, h.service_plan_id, p.status, c.customer_ref, c.name AS customer_name, l.name AS plan_name,
       i.invoice_number, h.reason_code, h.text, h.held_at,
       CASE WHEN h.reason_code = 'payment_rejected' THEN 'finance'
            ELSE 'finance, customer_success, engineering' END AS released_by_team
FROM prepaid.holds h
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.plans l ON l.plan_id = p.plan_id
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE h.released_at IS NULL;

-- Every sign-off that was ever made, for the acting person's own teams (engineering sees all).
CREATE VIEW prepaid.decisions AS
SELECT s.sign_off_id, s.task_id, k.kind, k.assigned_role AS team, k.service_plan_id, c.customer_ref,
       i.invoice_number, i.currency, i.payable, s.decision, s.note, s.decided_by, s.decided_at
FROM prepaid.sign_offs s
JOIN prepaid.tasks k USING (task_id)
LEFT JOIN prepaid.service_plans p ON p.service_plan_id = k.service_plan_id
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.invoice_id = k.invoice_id
WHERE EXISTS (SELECT FROM prepaid.team_members m
              WHERE m.person = prepaid.acting_person() AND m.team IN (k.assigned_role, 'engineering'));

-- Everything about one plan: ask for a service_plan_id. The audit log is the thread; records,
-- sign-offs, holds and mails add their own words. place and id order what happened at one moment.
CREATE VIEW prepaid.plan_events AS
SELECT a.service_plan_id, a.at, a.event, a.actor,
       concat_ws(' ', a.before || ' ->',
           CASE a.event WHEN 'hold_released' THEN 'released' ELSE a.after END,
           '(' || CASE a.event WHEN 'hold_released' THEN h.note ELSE a.detail END || ')',
           CASE a.event WHEN 'hold_placed' THEN h.text END, q.note) AS what,
       1 AS place, a.audit_id AS id
FROM prepaid.audit_log a
LEFT JOIN prepaid.holds h ON a.entity = 'hold' AND h.hold_id = a.entity_id
LEFT JOIN prepaid.requests q ON a.entity = 'request' AND q.request_id = a.entity_id
UNION ALL
SELECT k.service_plan_id, k.opened_at, 'task_opened', 'pipeline',
       format('task %s: %s for %s, due on %s', k.task_id, k.kind, k.assigned_role, k.due_on), 2, k.task_id
FROM prepaid.tasks k
UNION ALL
SELECT k.service_plan_id, s.decided_at, 'sign_off', s.decided_by,
       concat_ws(' ', format('task %s: %s', s.task_id, s.decision),
           CASE WHEN s.note IS NOT NULL THEN '(' || s.note || ')' END), 3, s.sign_off_id
FROM prepaid.sign_offs s JOIN prepaid.tasks k USING (task_id)
UNION ALL
SELECT i.service_plan_id, t.received_at, 'payment_record', coalesce(t.provider, 'unknown provider'),
       concat_ws(' ', t.provider_ref, t.status, t.amount, t.currency, 'for', t.invoice_number), 4,
       t.transaction_id
FROM prepaid.transactions t JOIN prepaid.invoices i ON i.invoice_number = t.invoice_number
UNION ALL
SELECT e.service_plan_id, e.created_at, 'email_ordered', 'pipeline',
       format('%s to %s: %s', e.template, e.recipient, e.status), 5, e.email_id
FROM prepaid.emails e
UNION ALL
SELECT k.service_plan_id, a.assigned_at, 'task_assigned', a.assigned_by,
       concat_ws(' ', format('task %s: %s', a.task_id, coalesce('to ' || a.assigned_to, 'to the team')),
           CASE WHEN a.note IS NOT NULL THEN '(' || a.note || ')' END), 6, a.assignment_id
FROM prepaid.task_assignments a JOIN prepaid.tasks k USING (task_id);

-- What stands at the head of that story.
CREATE VIEW prepaid.plan_summaries AS
SELECT p.service_plan_id, p.origin, p.kind, p.status, s.subscription_ref, c.customer_ref,
       c.name AS customer_name, l.plan_code, l.name AS plan_name, p.start_date, p.end_date, p.currency,
       p.net_amount, p.previous_plan_id, i.invoice_number, i.status AS invoice_status, i.net, i.tax,
       i.total, i.payable
FROM prepaid.service_plans p
JOIN prepaid.subscriptions s USING (subscription_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
JOIN prepaid.plans l ON l.plan_id = p.plan_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void';

-- Asks another person of the same team, or the whole team again (to_person null), to do open tasks;
-- for the acting person, who is in that team. All or nothing. Returns how many changed hands.
CREATE FUNCTION prepaid.reassign_tasks(task_ids bigint[], to_person text, why text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    reassigned integer;
    refused record;
BEGIN
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id FOR UPDATE;
    SELECT asked.task_id, reason INTO refused
    FROM unnest(task_ids) asked (task_id)
    LEFT JOIN LATERAL (SELECT * FROM prepaid.tasks WHERE task_id = asked.task_id OFFSET 0) k ON true
    CROSS JOIN LATERAL (SELECT CASE
        WHEN k.task_id IS NULL THEN 'there is no such task'
        WHEN NOT prepaid.is_in_team(acting_person(), k.assigned_role)
            THEN format('it belongs to %s, and %s is not in that team', k.assigned_role, acting_person())
        WHEN k.status <> 'Open' THEN format('it is %s', k.status)
        WHEN to_person IS NOT NULL AND NOT prepaid.is_in_team(to_person, k.assigned_role)
            THEN format('%s is not in %s', to_person, k.assigned_role)
        ELSE (SELECT format('%s %s: somebody else decides', to_person, e.what) FROM prepaid.four_eyes e
              WHERE e.task_id = k.task_id AND e.person = to_person LIMIT 1)
        END AS reason) judged
    WHERE reason IS NOT NULL ORDER BY asked.task_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task % cannot be assigned: %', refused.task_id, refused.reason;
    END IF;
    WITH moved AS (
        UPDATE prepaid.tasks k SET assigned_to = to_person
        WHERE k.task_id = ANY (task_ids) AND k.assigned_to IS DISTINCT FROM to_person
        RETURNING k.task_id
    )
    INSERT INTO prepaid.task_assignments (task_id, assigned_to, note, assigned_by)
    SELECT moved.task_id, to_person, why, acting_person() FROM moved ORDER BY moved.task_id;
    GET DIAGNOSTICS reassigned = ROW_COUNT;
    RETURN reassigned;
END $$;

-- 16_rights.sql
-- Teams are database roles without login; each person is a role of their own in one of them.
-- Roles belong to the server, not to the database: another database may have made them already.
-- What each may do is written down in docs/rights.md, and a test compares the two.

DO $$
DECLARE
    team text;
BEGIN
    FOREACH team IN ARRAY ARRAY['finance', 'customer_success', 'leadership', 'engineering', 'desk'] LOOP
        BEGIN
            -- NOINHERIT is for desk, which may take the role of a person and has none of their rights.
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', team);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA prepaid TO finance, customer_success, engineering, desk;
GRANT USAGE ON SCHEMA revenue TO finance, leadership, engineering;

REVOKE EXECUTE ON FUNCTION prepaid.decide_tasks, prepaid.release_holds FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.decide_tasks TO finance, customer_success;
GRANT EXECUTE ON FUNCTION prepaid.release_holds TO finance, customer_success, engineering;

GRANT SELECT, UPDATE (decision, note) ON prepaid.payment_verifications TO finance;
GRANT SELECT ON prepaid.customers, prepaid.subscriptions, prepaid.service_plans, prepaid.invoices,
    prepaid.invoice_lines, prepaid.transactions, prepaid.tasks, prepaid.sign_offs, prepaid.holds
    TO finance;
GRANT SELECT, UPDATE (decision, note) ON prepaid.quality_checks TO customer_success;
GRANT SELECT ON prepaid.tasks, prepaid.holds TO customer_success;
GRANT SELECT ON prepaid.parked_payments, prepaid.approval_limits TO finance;
GRANT SELECT ON prepaid.installation, prepaid.desk_overview, prepaid.sign_off_times,
    prepaid.held_plans, prepaid.decisions, prepaid.plan_events, prepaid.plan_summaries,
    prepaid.task_assignments TO finance, customer_success;
GRANT SELECT ON ALL TABLES IN SCHEMA prepaid TO engineering;

-- How people sign in is nobody's to read, and only the pages' own login asks about it.
REVOKE ALL ON prepaid.desk_accounts, prepaid.desk_sessions FROM engineering;
REVOKE EXECUTE ON FUNCTION prepaid.desk_account, prepaid.desk_person, prepaid.desk_failed,
    prepaid.desk_open_session, prepaid.desk_session, prepaid.desk_end_session, prepaid.desk_end_sessions,
    prepaid.set_password, prepaid.set_disabled, prepaid.reassign_tasks FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.desk_account, prepaid.desk_person, prepaid.desk_failed,
    prepaid.desk_open_session, prepaid.desk_session, prepaid.desk_end_session, prepaid.desk_end_sessions
    TO desk;
GRANT EXECUTE ON FUNCTION prepaid.reassign_tasks TO finance, customer_success;

-- The owner does not need these rights, and would have to give them back to itself to change what was
-- signed or logged. (Triggers refuse it even then.)
REVOKE UPDATE, DELETE, TRUNCATE ON prepaid.sign_offs, prepaid.audit_log FROM CURRENT_USER;
GRANT SELECT ON ALL TABLES IN SCHEMA revenue TO finance, leadership, engineering;
