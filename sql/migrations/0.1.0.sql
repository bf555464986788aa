-- Release 0.1.0: sql/schema as it was then. Frozen: a change is a new migration.

-- 01_audit_log.sql

-- The audit log, and who is acting, in which run and for which day. It comes first: each trigger that
-- writes it stands beside the table that it watches.
--
-- Append-only. Every change of state writes its row in the same transaction, by triggers that no
-- caller can forget. No foreign keys: the log must not depend on what it describes, and no
-- personal data: an entry can never be erased.
--
-- Statement triggers with transition tables: one insert per statement, not one per row. Their plans
-- are kept from the first call in a session, often one of no rows at all; without nested loops such
-- a plan is still right for ten thousand (2,700 rows: 0.02 s instead of 1.4 s).

-- The migrations make the schema first, for the table that says which of them have run.
CREATE SCHEMA IF NOT EXISTS prepaid;

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

CREATE FUNCTION prepaid.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
ALTER TABLE prepaid.audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;

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

-- 02_audit_seals.sql

-- The audit log is hash-chained by seals: after a batch, a job or a decision one seal over the entries
-- that are committed and not sealed yet, with the hash of the seal before it. Writing an entry waits for
-- nobody. docs/audit.md describes the format; sql/audit/verify.sql recomputes it.

CREATE TABLE prepaid.audit_seals (
    seal_number bigint PRIMARY KEY CHECK (seal_number > 0),
    sealed_at timestamptz NOT NULL,
    -- The highest id that this seal or one before it has looked at.
    sealed_through bigint NOT NULL,
    entries integer NOT NULL CHECK (entries > 0),
    -- The ids of the entries, in whose order they are hashed. Ids below the sealed_through of the seal
    -- before are entries that committed later than others with higher ids.
    ids int8multirange NOT NULL,
    -- The ids up to sealed_through that transactions may still write. Every other one that is not in
    -- a seal stays empty: an entry there was inserted afterwards.
    awaited int8multirange NOT NULL,
    -- sha256 over the entries' sha256 hashes; and the first 8 bytes of each of these, by which a
    -- changed entry is named.
    entries_hash bytea NOT NULL CHECK (length(entries_hash) = 32),
    digests bytea NOT NULL CHECK (length(digests) = 8 * entries),
    previous_hash bytea NOT NULL CHECK (length(previous_hash) = 32),
    seal_hash bytea NOT NULL CHECK (length(seal_hash) = 32)
);
-- Hashes cannot be compressed; uncompressed, eight bytes are read without the others.
ALTER TABLE prepaid.audit_seals ALTER COLUMN digests SET STORAGE EXTERNAL;
-- In which seal an entry is: the first that has looked as far, or a later one.
CREATE INDEX audit_seals_by_sealed_through ON prepaid.audit_seals (sealed_through, seal_number);
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
ALTER TABLE prepaid.audit_seals ENABLE ALWAYS TRIGGER audit_seals_append_only;

-- Which transactions may still write the awaited ids. It is no part of the chain: after a restart or
-- in another cluster none of them exists any more, and the ids are given up by the next seal.
CREATE TABLE prepaid.audit_awaited (
    ids int8multirange NOT NULL,
    writers text[] NOT NULL
);

-- Seals up to 50,000 entries and returns how many; null when somebody else is sealing at this moment
-- (or waits, when asked to). One seal per call, so that the memory of both sealing and verifying has
-- an upper end. To be called in a transaction of its own, which reads what is committed.
--
-- Ids are taken before the commit, so a lower one may still be missing. The order of the four reads is
-- what makes sure that none is skipped: whoever has taken an id up to sealed_through had locked the
-- table for writing before the first read, and is either among the writers of the second or has ended
-- before the third, which then sees its entry unless it was rolled back.
CREATE FUNCTION prepaid.seal_audit_log(wait boolean DEFAULT false)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = prepaid, pg_temp SET enable_seqscan TO off AS $$
DECLARE
    the_lock CONSTANT bigint := hashtext('prepaid.seal_audit_log');
    last prepaid.audit_seals;
    made prepaid.audit_seals;
    writing text[];
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the audit log is sealed by READ COMMITTED transactions only';
    END IF;
    IF wait THEN
        PERFORM pg_advisory_xact_lock(the_lock);
    ELSIF NOT pg_try_advisory_xact_lock(the_lock) THEN
        RETURN NULL;
    END IF;
    SELECT * INTO last FROM audit_seals s ORDER BY s.seal_number DESC LIMIT 1;
    last.sealed_through := coalesce(last.sealed_through, 0);
    -- An id that was never given out would leave all others below it.
    SELECT coalesce(max(next.audit_id), last.sealed_through) INTO made.sealed_through
    FROM (SELECT a.audit_id FROM audit_log a
          WHERE a.audit_id > last.sealed_through
            AND a.audit_id <= (SELECT q.last_value FROM audit_log_audit_id_seq q)
          ORDER BY a.audit_id LIMIT 50000) next;

    SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{}') INTO writing
    FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.relation = 'prepaid.audit_log'::regclass
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.mode = 'RowExclusiveLock' AND l.pid IS DISTINCT FROM pg_backend_pid();

    SELECT count(*), range_agg(int8range(entry.audit_id, entry.audit_id, '[]')),
           sha256(string_agg(entry.hash, '' ORDER BY entry.audit_id)),
           string_agg(substr(entry.hash, 1, 8), '' ORDER BY entry.audit_id)
    INTO made.entries, made.ids, made.entries_hash, made.digests
    FROM unnest(coalesce(last.awaited, '{}')
                + int8multirange(int8range(last.sealed_through, made.sealed_through, '(]'))) span
    CROSS JOIN LATERAL (
        SELECT a.audit_id, sha256(record_send(ROW(
            a.audit_id, a.at, convert_to(a.event, 'UTF8'), a.service_plan_id,
            convert_to(a.entity, 'UTF8'), a.entity_id, convert_to(a.before, 'UTF8'),
            convert_to(a.after, 'UTF8'), convert_to(a.detail, 'UTF8'), convert_to(a.actor, 'UTF8'),
            convert_to(a.run_id, 'UTF8'), a.as_of))) AS hash
        FROM audit_log a
        WHERE a.audit_id >= lower(span) AND a.audit_id < upper(span)
        ORDER BY a.audit_id) entry;
    IF made.entries = 0 THEN
        RETURN 0;
    END IF;

    DELETE FROM audit_awaited w WHERE NOT w.writers && writing;
    UPDATE audit_awaited w SET ids = w.ids - made.ids WHERE w.ids && made.ids;
    INSERT INTO audit_awaited (ids, writers)
    SELECT gaps.ids, writing
    FROM (SELECT int8multirange(int8range(last.sealed_through, made.sealed_through, '(]'))
                 - made.ids AS ids) gaps
    WHERE NOT isempty(gaps.ids) AND cardinality(writing) > 0;

    made.seal_number := coalesce(last.seal_number, 0) + 1;
    made.sealed_at := clock_timestamp();
    made.awaited := coalesce((SELECT range_agg(w.ids) FROM audit_awaited w), '{}');
    made.previous_hash := coalesce(last.seal_hash, decode(repeat('00', 32), 'hex'));
    made.seal_hash := sha256(record_send(ROW(
        made.seal_number, made.sealed_at, made.sealed_through, made.entries,
        convert_to(made.ids::text, 'UTF8'), convert_to(made.awaited::text, 'UTF8'),
        made.entries_hash, made.digests, made.previous_hash)));
    INSERT INTO audit_seals VALUES (made.*);
    RETURN made.entries;
END $$;

-- 03_installation.sql

-- What holds for the whole installation, and which day it is there.

-- One row. 'prepaid migrate' writes it from PREPAID_TIMEZONE, PREPAID_TASK_DAYS and PREPAID_GRACE_DAYS,
-- so that everybody who works with the tables counts the same days.
CREATE TABLE prepaid.installation (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    timezone text NOT NULL,
    -- How many days people have for a task.
    task_days integer NOT NULL DEFAULT 3 CHECK (task_days >= 0),
    -- How many days after its end a term counts as renewed, in the figures of renewals.
    grace_days integer NOT NULL DEFAULT 7 CHECK (grace_days >= 0)
);
INSERT INTO prepaid.installation (timezone) VALUES ('UTC');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.installation
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('installation', 'no single key', 'values');

-- The day that a moment belongs to, where the installation is.
CREATE FUNCTION prepaid.business_date(moment timestamptz) RETURNS date LANGUAGE sql STABLE RETURN
    (moment AT TIME ZONE (SELECT timezone FROM prepaid.installation))::date;

-- The business date of what is being done: the one that was given, else today where the
-- installation is (never current_date: that is the day where the session happens to be).
CREATE FUNCTION prepaid.today() RETURNS date LANGUAGE sql STABLE RETURN
    coalesce(prepaid.as_of(), prepaid.business_date(now()));

-- 10_catalogue.sql

-- What is sold and how it is taxed: currencies, plans, add-ons, price lists, tax rates.

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
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.plans
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('plan', 'plan_id', 'values');

-- A plan may be sold in a currency without a list price: then each subscription has its own.
-- (NaN is greater than any number in PostgreSQL: "< Infinity" refuses both.) A price holds from its
-- date until the next one; 1900-01-01 is "from the beginning". One that includes tax is what the
-- customer pays, the others are net.
CREATE TABLE prepaid.plan_prices (
    plan_id bigint NOT NULL REFERENCES prepaid.plans,
    currency text NOT NULL REFERENCES prepaid.currencies,
    price numeric CHECK (price >= 0 AND price < 'Infinity'),
    valid_from date NOT NULL DEFAULT '1900-01-01' CHECK (valid_from >= '1900-01-01'),
    includes_tax boolean NOT NULL DEFAULT false,
    PRIMARY KEY (plan_id, currency, valid_from)
);
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.plan_prices
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('plan_price', 'plan_id', 'values',
        'currency,valid_from');
CREATE TRIGGER audit_added_master_data AFTER INSERT ON prepaid.plan_prices
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_added_master_data('plan_price', 'plan_id');

CREATE TABLE prepaid.addons (
    addon_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    addon_code text NOT NULL UNIQUE,
    name text NOT NULL,
    recurring boolean NOT NULL,
    tax_class text NOT NULL DEFAULT 'standard'
);
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.addons
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('addon', 'addon_id', 'values');

-- The add-on's price when it is sold with a plan of that term.
CREATE TABLE prepaid.addon_prices (
    addon_id bigint NOT NULL REFERENCES prepaid.addons,
    term_months integer NOT NULL,
    term_days integer NOT NULL,
    currency text NOT NULL REFERENCES prepaid.currencies,
    price numeric NOT NULL CHECK (price >= 0 AND price < 'Infinity'),
    valid_from date NOT NULL DEFAULT '1900-01-01' CHECK (valid_from >= '1900-01-01'),
    includes_tax boolean NOT NULL DEFAULT false,
    PRIMARY KEY (addon_id, term_months, term_days, currency, valid_from),
    CHECK ((term_months > 0) <> (term_days > 0))
);
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.addon_prices
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('addon_price', 'addon_id', 'values',
        'term_months,term_days,currency,valid_from');
CREATE TRIGGER audit_added_master_data AFTER INSERT ON prepaid.addon_prices
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_added_master_data('addon_price', 'addon_id');

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

-- rate is a fraction (0.0725 is 7.25 %). No row is "unknown", 0 is "zero-rated"; exempt is a
-- property of the customer. The three are never the same thing.
CREATE TABLE prepaid.tax_rates (
    country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    tax_class text NOT NULL,
    rate numeric NOT NULL CHECK (rate >= 0 AND rate <= 1),
    valid_from date NOT NULL,
    PRIMARY KEY (country, tax_class, valid_from)
);
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.tax_rates
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('tax_rate', 'no single key', 'values',
        'country,tax_class,valid_from');

-- What is left of an amount that contains the tax, rounded half up to the currency's decimals. In
-- whole quotients of minor units: a quotient that is rounded twice can miss half a cent.
CREATE FUNCTION prepaid.without_tax(amount numeric, rate numeric, exponent integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    round(div(2 * amount * 10::numeric ^ exponent + 1 + rate, 2 * (1 + rate)) * 10::numeric ^ -exponent,
          exponent);

-- What one line gets of its group's amount, by largest remainder, in whole units. Exactly it would be
-- share / divisor. The group's amount (shares: the sum of its lines' share) is rounded half up once; what
-- the whole quotients (floors: their sum) leave of it goes to the lines in the order of place, which is by
-- mod(share, divisor), greatest first. Sums and place are the caller's windows: a function over a whole
-- group would be called once per plan, and not be a part of one statement over ten thousand.
CREATE FUNCTION prepaid.allocated(
    share numeric, divisor numeric, shares numeric, floors numeric, place bigint
) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    div(share, divisor)
    + CASE WHEN place <= div(2 * shares + divisor, 2 * divisor) - floors THEN 1 ELSE 0 END;

-- 11_customers.sql

-- Who buys: customers, their subscriptions and the discounts on them.

CREATE TABLE prepaid.customers (
    customer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_ref text NOT NULL UNIQUE,
    name text NOT NULL,
    email text,
    country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    currency text NOT NULL REFERENCES prepaid.currencies,
    tax_exempt boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- What stands on the invoices of an exempt customer, such as "Reverse charge".
    tax_exempt_reason text
);
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.customers
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('customer', 'customer_id', 'names');

-- price is the customer's own net price of one unit for one term; null means the price list's.
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
    created_at timestamptz NOT NULL DEFAULT now(),
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1)
);
CREATE INDEX subscriptions_by_customer ON prepaid.subscriptions (customer_id);
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.subscriptions
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('subscription', 'subscription_id', 'values');

-- Imported beside a service_plans.csv or a discounts.csv that has not been taken yet (or was refused):
-- until it is, a subscription without terms is no purchase. It may have been running for years, or
-- would be invoiced without its discount.
CREATE TABLE prepaid.subscriptions_awaiting_history (
    subscription_id bigint PRIMARY KEY REFERENCES prepaid.subscriptions
);

CREATE TABLE prepaid.subscription_addons (
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    addon_id bigint NOT NULL REFERENCES prepaid.addons,
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1),
    PRIMARY KEY (subscription_id, addon_id)
);

-- A discount takes a percentage or an amount (of the customer's currency) off a subscription's plan
-- and recurring add-ons. terms null: permanent; n: the first n terms that start on or after starts_on
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
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.discounts
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('discount', 'discount_id', 'values', 'discount_code');
CREATE TRIGGER audit_added_master_data AFTER INSERT ON prepaid.discounts
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_added_master_data('discount', 'discount_id');

-- 20_service_plans.sql

-- One row of service_plans is one prepaid term of one subscription: it is the process instance.
-- Here: how its term is counted, the table, and the audit entries of its changes.

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

CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TABLE prepaid.service_plans (
    service_plan_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    customer_id bigint NOT NULL REFERENCES prepaid.customers,
    plan_id bigint NOT NULL REFERENCES prepaid.plans,
    previous_plan_id bigint REFERENCES prepaid.service_plans,
    origin text NOT NULL CHECK (origin IN ('imported', 'pipeline')),
    kind text NOT NULL CHECK (kind IN ('new', 'renewal', 'reactivation', 'change')),
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
    -- confirmation are made from it and do not change with them. price is that of one unit, and of
    -- the whole term for what was imported (quantity 1); net unless price_includes_tax. addons is an
    -- array of {"addon_code", "name", "price", "includes_tax", "quantity", "recurring", "tax_class"},
    -- ordered by code; discounts (null: none) one of {"discount_code", "name", "percent", "amount",
    -- "for_ever"}, those that apply to this term.
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

    -- net_amount: the whole term without tax, after discounts, one-time fees included.
    -- recurring_amount: without the fees, and reduced only by permanent discounts. Both are
    -- known once the tax is (step 5), and at once for imported terms.
    -- monthly_amount: the term's part of monthly recurring revenue, unrounded.
    net_amount numeric CHECK (net_amount >= 0 AND net_amount < 'Infinity'),
    recurring_amount numeric CHECK (recurring_amount >= 0),
    monthly_amount numeric GENERATED ALWAYS AS (
        CASE WHEN term_months > 0 THEN recurring_amount / term_months
        ELSE recurring_amount * 365.25 / 12 / term_days END) STORED,

    invoiced_at timestamptz,
    activated_on date,
    activated_at timestamptz,
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1),
    price_includes_tax boolean NOT NULL DEFAULT false,
    discounts jsonb,
    tax_exempt_reason text,
    -- The end that was paid for, when the term was cut: by a change of plan it ends where the new
    -- term starts, by a cancellation at once on that day. Null for a term that was not cut.
    full_end_date date,
    -- Cancelled for a reason of the subscription's, not of this term: it was leaving, or a change of
    -- plan came instead. If that is taken back, the renewal may be opened again.
    may_reopen boolean NOT NULL DEFAULT false,
    -- When we learnt of the term, by which a later version of a report says why it differs. Null for
    -- terms from before this was noted.
    created_at timestamptz DEFAULT clock_timestamp(),

    -- Cancelled on its very first day, a term is empty: nothing of it was used.
    CHECK (end_date > start_date
        OR end_date = start_date AND status = 'Cancelled' AND full_end_date IS NOT NULL),
    CHECK (full_end_date IS NULL OR full_end_date > end_date AND activated_on IS NOT NULL),
    CHECK ((term_months > 0) <> (term_days > 0)),
    CHECK (status NOT IN ('Active', 'Expired')
        OR (activated_on IS NOT NULL AND net_amount IS NOT NULL AND recurring_amount IS NOT NULL)),
    CHECK (status <> 'Processing' OR invoiced_at IS NULL),

    -- Two terms of one subscription never overlap; one that was cut counts for the days it had. A
    -- plan that waits, or was cancelled before its activation, must not block.
    CONSTRAINT service_plans_terms_do_not_overlap EXCLUDE USING gist (
        subscription_id WITH =, daterange(start_date, end_date) WITH &&)
        WHERE (activated_on IS NOT NULL)
);
CREATE UNIQUE INDEX service_plans_one_live_successor ON prepaid.service_plans (previous_plan_id)
    WHERE status <> 'Cancelled' AND previous_plan_id IS NOT NULL;
CREATE UNIQUE INDEX service_plans_one_live_first_plan ON prepaid.service_plans (subscription_id)
    WHERE status <> 'Cancelled' AND previous_plan_id IS NULL;
CREATE INDEX service_plans_by_subscription ON prepaid.service_plans (subscription_id, start_date);
CREATE INDEX service_plans_to_invoice ON prepaid.service_plans (service_plan_id)
    WHERE invoiced_at IS NULL AND status IN ('Pending', 'Processing');
-- Few plans are changes: the steps that ask for them need not look at each plan of a batch.
CREATE INDEX service_plans_changes ON prepaid.service_plans (service_plan_id) WHERE kind = 'change';
CREATE INDEX service_plans_ending ON prepaid.service_plans (end_date)
    WHERE status IN ('Active', 'Expired');
CREATE INDEX service_plans_to_expire ON prepaid.service_plans (end_date) WHERE status = 'Active';

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

-- 21_plan_states.sql

-- The state machine of service plans. Whatever is not written here is refused, whoever asks.

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
    -- A plan that nobody activates any more leaves nothing behind that asks for money or for a person:
    -- prepaid.close_waiting_plans comes first.
    IF NEW.status = 'Cancelled' AND OLD.status IN ('Pending', 'Processing') AND (
        EXISTS (SELECT FROM prepaid.unsettled_plans u WHERE u.service_plan_id = NEW.service_plan_id)
        OR EXISTS (SELECT FROM prepaid.invoices i
                   WHERE i.service_plan_id = NEW.service_plan_id AND i.status = 'Open')
        OR EXISTS (SELECT FROM prepaid.holds h
                   WHERE h.service_plan_id = NEW.service_plan_id AND h.released_at IS NULL))
    THEN
        RAISE EXCEPTION 'service plan % cannot be Cancelled while it waits in the queue, is held or has an '
            'open invoice: prepaid.close_waiting_plans comes first', NEW.service_plan_id;
    END IF;
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

-- 30_invoices.sql

-- What will be invoiced, and invoices with gapless numbers per series and year of issue.

-- Step 3: what will be invoiced. tax_rate null means exempt. list_amount is quantity times
-- unit_price and, like discount, contains the tax where includes_tax; net is what remains, without
-- tax, and recurring_net the part of it that counts as recurring revenue. currency is the plan's: a
-- foreign key of its own would cost a look-up per line.
CREATE TABLE prepaid.charges (
    service_plan_id bigint NOT NULL REFERENCES prepaid.service_plans,
    line_number integer NOT NULL CHECK (line_number > 0),
    description text NOT NULL,
    currency text NOT NULL,
    net numeric NOT NULL CHECK (net >= 0),
    tax_class text NOT NULL,
    tax_rate numeric CHECK (tax_rate >= 0),
    tax numeric NOT NULL CHECK (tax >= 0),
    calculated_for date NOT NULL,
    quantity integer NOT NULL CHECK (quantity >= 1),
    unit_price numeric NOT NULL CHECK (unit_price >= 0),
    list_amount numeric NOT NULL,
    discount numeric NOT NULL CHECK (discount >= 0),
    includes_tax boolean NOT NULL,
    recurring_net numeric NOT NULL CHECK (recurring_net >= 0),
    PRIMARY KEY (service_plan_id, line_number),
    CHECK (tax_rate IS NOT NULL OR tax = 0),
    CHECK (net = list_amount - discount - CASE WHEN includes_tax THEN tax ELSE 0 END)
);

CREATE TABLE prepaid.invoice_series (
    series text NOT NULL,
    year integer NOT NULL,
    last_number integer NOT NULL DEFAULT 0 CHECK (last_number >= 0),
    PRIMARY KEY (series, year)
);

CREATE FUNCTION prepaid.invoice_number(series text, year integer, number bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    series || '-' || year || '-' || lpad(number::text, greatest(6, length(number::text)), '0');

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
    -- Step 7 notes the provider's record here; unique, because a record pays one invoice only.
    transaction_id bigint UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What a credit note pays of it (a plan that was changed mid-term); the customer pays the rest.
    credit numeric NOT NULL DEFAULT 0,
    payable numeric NOT NULL GENERATED ALWAYS AS (total - credit) STORED,
    CHECK (net + tax = total),
    CHECK (credit >= 0 AND credit <= total),
    CHECK ((status = 'Paid') = (paid_on IS NOT NULL))
);
CREATE UNIQUE INDEX invoices_one_live_per_plan ON prepaid.invoices (service_plan_id)
    WHERE status <> 'Void';
CREATE INDEX invoices_by_customer ON prepaid.invoices (customer_id);

-- When an invoice is due: it is paid in advance, so on the day on which its term was to start, or on
-- the day of issue if that is later.
CREATE FUNCTION prepaid.due_on(issued_on date, planned_start date) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN greatest(issued_on, planned_start);

-- Until when it can be paid; null: without limit. A change of plan that nobody pays must be out of the way
-- before the running term ends, so that this one is renewed: the day after the last day to pay it is
-- cancelled, the day after that the renewal is opened, also without days of grace.
CREATE FUNCTION prepaid.last_day_to_pay(due_on date, payment_days integer, running_until date) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN payment_days IS NOT NULL OR running_until IS NOT NULL
         THEN greatest(due_on, least(due_on + payment_days, running_until - 2)) END;

-- quantity to includes_tax as in charges: what the customer sees of how the net came about.
CREATE TABLE prepaid.invoice_lines (
    invoice_id bigint NOT NULL REFERENCES prepaid.invoices,
    line_number integer NOT NULL,
    description text NOT NULL,
    net numeric NOT NULL CHECK (net >= 0),
    tax_class text NOT NULL,
    tax_rate numeric CHECK (tax_rate >= 0),
    tax numeric NOT NULL CHECK (tax >= 0),
    quantity integer NOT NULL CHECK (quantity >= 1),
    unit_price numeric NOT NULL CHECK (unit_price >= 0),
    list_amount numeric NOT NULL,
    discount numeric NOT NULL CHECK (discount >= 0),
    includes_tax boolean NOT NULL,
    PRIMARY KEY (invoice_id, line_number),
    CHECK (net = list_amount - discount - CASE WHEN includes_tax THEN tax ELSE 0 END)
);

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

-- 31_invoice_states.sql

-- The state machine of invoices. Whatever is not written here is refused, whoever asks; so is any
-- edit of what was issued.

CREATE FUNCTION prepaid.check_invoice_transition() RETURNS trigger LANGUAGE plpgsql AS $$
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
                        OLD.net, OLD.tax, OLD.total, OLD.credit, OLD.issued_on)
        IS DISTINCT FROM (NEW.invoice_number, NEW.service_plan_id, NEW.customer_id, NEW.currency,
                          NEW.net, NEW.tax, NEW.total, NEW.credit, NEW.issued_on))
    EXECUTE FUNCTION prepaid.refuse_invoice_edit();
CREATE TRIGGER invoices_stay BEFORE DELETE OR TRUNCATE ON prepaid.invoices
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
CREATE TRIGGER invoice_lines_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.invoice_lines
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

-- 32_void_and_reissue.sql

-- Void and reissue: a number that was given stays, the plan goes back to before step 1.

-- Voids the open invoices of plans with what hangs on them: nobody is asked to pay or to verify any
-- more, and money that was matched to them goes to finance as a task.
CREATE FUNCTION prepaid.void_open_invoices(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = ANY (plans) AND kind = 'payment_verification' AND status = 'Open';
    -- Money of a paid invoice that was credited is paid back by the credit note's own task.
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on, due_on)
    SELECT 'payment_review', i.service_plan_id, i.invoice_id, t.transaction_id,
           prepaid.team_of('payment_review'), prepaid.today(), prepaid.task_due_on(prepaid.today())
    FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
    -- Void ones have no matched record. Saying so finds the invoice by its index; reading 40,000 of
    -- them cost 34 ms for each plan.
    WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void' AND t.outcome = 'matched'
      AND NOT EXISTS (SELECT FROM prepaid.credit_notes n WHERE n.service_plan_id = i.service_plan_id)
    ORDER BY i.service_plan_id, t.transaction_id
    ON CONFLICT DO NOTHING;
    -- In the words of match_payments for a record that comes only now.
    UPDATE prepaid.transactions t
    SET outcome = 'parked', outcome_reason = format('invoice %s is void', i.invoice_number)
    FROM prepaid.invoices i
    WHERE i.service_plan_id = ANY (plans) AND i.status = 'Open'
      AND t.invoice_id = i.invoice_id AND t.outcome = 'matched';
    -- The record is free: a person may assign it to another invoice.
    UPDATE prepaid.invoices SET status = 'Void', transaction_id = NULL
    WHERE service_plan_id = ANY (plans) AND status = 'Open';
END $$;

-- Voids an open invoice for the finance officer who is acting. With reissue the next run issues a new
-- one from what the subscription has then; without, the plan is held until somebody decides. The invoice
-- of a plan that is over (its payment was taken back) is not collectible; the plan stays as it is.
-- Returns the plan.
CREATE FUNCTION prepaid.void_invoice(number text, reissue boolean, why text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('void invoices', why);
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
        RAISE EXCEPTION 'service plan % of invoice % is active, although its payment was reversed: %',
            p.service_plan_id, number, CASE WHEN p.full_end_date IS NULL
                THEN 'cancel it at once, that voids the invoice'
                ELSE format('void it when the term has ended, on %s', p.end_date) END;
    ELSIF reissue AND over THEN
        RAISE EXCEPTION 'service plan % of invoice % is %: its invoice can be voided, not reissued',
            p.service_plan_id, number, p.status;
    END IF;
    PERFORM prepaid.void_open_invoices(ARRAY[p.service_plan_id]);
    -- What was doubtful about the payment was about this invoice.
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = person, note = why
    WHERE service_plan_id = p.service_plan_id AND released_at IS NULL
      AND reason_code IN (SELECT r.reason_code FROM prepaid.hold_reasons r WHERE r.about_invoice);
    -- A term that is over stays as it was: what was taken back is not collectible.
    IF NOT over THEN
        DELETE FROM prepaid.charges WHERE service_plan_id = p.service_plan_id;
    END IF;
    -- An order keeps the price that was agreed; all else is taken again from the subscription.
    UPDATE prepaid.service_plans
    SET status = 'Pending', invoiced_at = NULL, retrieved_at = NULL,
        price = CASE WHEN opened_on IS NULL THEN price END
    WHERE service_plan_id = p.service_plan_id AND NOT over;
    -- A worker that has the plan in hand finds it gone from its batch.
    IF over THEN
        DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = p.service_plan_id;
    ELSE
        UPDATE prepaid.unsettled_plans SET batch_id = NULL WHERE service_plan_id = p.service_plan_id;
    END IF;
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

-- 33_credit_notes.sql

-- Credit for the days of a term that are not used: the notes, what one would say, and its issue.

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
CREATE TRIGGER credit_notes_stay BEFORE DELETE OR TRUNCATE ON prepaid.credit_notes
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

CREATE FUNCTION prepaid.audit_new_credit_notes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, detail, actor, run_id, as_of)
    SELECT 'credit_note_issued', service_plan_id, 'credit_note', credit_note_id,
           format('%s over %s %s', credit_note_number, total, currency),
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_new_credit_notes AFTER INSERT ON prepaid.credit_notes
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_new_credit_notes();

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
CREATE TRIGGER credit_note_lines_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.credit_note_lines
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

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
                'cannot be credited: add the rate (import tax_rates.csv), then try again',
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
    ), ranked AS (
        SELECT s.*, sum(s.share) OVER tax_group AS shares, sum(div(s.share, s.parts)) OVER tax_group AS floors,
               row_number() OVER (PARTITION BY s.tax_class, s.tax_rate
                   ORDER BY mod(s.share, s.parts) DESC, s.line_number) AS place
        FROM shares s
        WINDOW tax_group AS (PARTITION BY s.tax_class, s.tax_rate)
    ), taxed AS (
        SELECT r.*, prepaid.allocated(r.share, r.parts, r.shares, r.floors, r.place) AS tax_units
        FROM ranked r
    )
    SELECT t.line_number, t.description, round(t.net_units / 10::numeric ^ term.exponent, term.exponent),
           t.tax_class, t.tax_rate, round(t.tax_units / 10::numeric ^ term.exponent, term.exponent)
    FROM taxed t
    WHERE t.net_units > 0 OR t.tax_units > 0
    ORDER BY t.line_number;
END $$;

-- Issues the credit note of a term; its id, null when there is nothing to credit. applied is what it
-- pays of invoice applied_to; the rest is owed to the customer, and finance is asked to pay it back.
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
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, credit_note_id, assigned_role, opened_on, due_on)
    SELECT 'payment_refund', n.service_plan_id, n.invoice_id, n.credit_note_id,
           prepaid.team_of('payment_refund'), n.issued_on, prepaid.task_due_on(n.issued_on)
    FROM prepaid.credit_notes n WHERE n.credit_note_id = note_id AND n.refund > 0;
    RETURN note_id;
END $$;

-- 34_payments.sql

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

-- 40_people.sql

-- Who counts as a person of a team. Teams are database roles; each person is a role of their own in
-- one of them.

-- The teams, and what each may do beside reading what it was given rights to and deciding its own tasks
-- (91_rights.sql, prepaid.team_of). The words are those of the messages: 'somebody may not …'.
CREATE TABLE prepaid.teams (
    team text PRIMARY KEY,
    may text[] NOT NULL
);
INSERT INTO prepaid.teams (team, may) VALUES
    ('finance', ARRAY['assign payments', 'void invoices', 'cancel plans', 'change plans',
        'release holds', 'release holds about money']),
    ('customer_success', ARRAY['cancel plans', 'change plans', 'release holds', 'resend emails',
        'settle emails', 'change a customer''s address', 'erase a customer']),
    ('leadership', ARRAY[]::text[]),
    ('engineering', ARRAY['see all tasks', 'release holds', 'resend emails', 'settle emails',
        'erase a customer']);

-- How a person signs in at the pages, and where mail reaches them. Nobody reads the table: the pages
-- ask functions (70_desk_sign_in.sql). The role is what holds rights; an account without one can do
-- nothing.
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
SELECT r.rolname AS person, t.team, a.email, t.may
FROM prepaid.teams t
JOIN pg_roles r ON pg_has_role(r.oid, t.team::name, 'USAGE')
LEFT JOIN prepaid.desk_accounts a ON a.person = r.rolname
WHERE NOT r.rolsuper AND a.disabled IS NOT TRUE
  AND r.rolname <> 'desk' AND r.rolname NOT IN (SELECT team FROM prepaid.teams)
  AND r.oid <> (SELECT relowner FROM pg_class WHERE oid = 'prepaid.desk_accounts'::regclass);

-- For functions that act with the owner's rights: others may not read team_members.
CREATE FUNCTION prepaid.is_in_team(name text, VARIADIC teams text[]) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM prepaid.team_members m
                   WHERE m.person = is_in_team.name AND m.team = ANY (teams));
END $$;

CREATE FUNCTION prepaid.teams_that_may(what text) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT array(SELECT team FROM prepaid.teams WHERE what = ANY (may) ORDER BY team);
$$;

-- The acting person, if one of their teams may do that; the audit log then names them, also in a session
-- of their own, where prepaid.actor could say anything.
CREATE FUNCTION prepaid.person_who_may(what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    person text := prepaid.acting_person();
    teams text[] := prepaid.teams_that_may(what);
BEGIN
    IF NOT prepaid.is_in_team(person, VARIADIC teams) THEN
        RAISE EXCEPTION '% may not %: not in %', person, what, array_to_string(teams, ' or ');
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    RETURN person;
END $$;

-- The same for what takes a note that says why.
CREATE FUNCTION prepaid.person_who_says_why(what text, why text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    person text := prepaid.person_who_may(what);
BEGIN
    IF coalesce(why, '') !~ '\S' THEN
        RAISE EXCEPTION 'to % needs a note that says why', what;
    END IF;
    RETURN person;
END $$;

-- 41_tasks.sql

-- What people are asked to do, by when, and which of them.

-- Whose task it is.
CREATE FUNCTION prepaid.team_of(kind text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN kind LIKE 'quality%' THEN 'customer_success' ELSE 'finance' END;

CREATE TABLE prepaid.tasks (
    task_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN (
        'payment_verification', 'payment_review', 'payment_refund',
        'quality_check', 'quality_follow_up')),
    service_plan_id bigint REFERENCES prepaid.service_plans,
    invoice_id bigint REFERENCES prepaid.invoices,
    transaction_id bigint REFERENCES prepaid.transactions,
    parent_task_id bigint UNIQUE REFERENCES prepaid.tasks,
    assigned_role text NOT NULL,
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
    credit_note_id bigint REFERENCES prepaid.credit_notes,
    -- Above the limit: who approved first. The task stays Open until somebody else approves as well.
    first_approved_by text,
    first_approved_at timestamptz,
    due_on date NOT NULL,
    -- The person who is asked; null: the whole team. Anybody of the team may decide.
    assigned_to text,
    CONSTRAINT tasks_assigned_role_check CHECK (assigned_role = prepaid.team_of(kind)),
    CHECK ((status = 'Open') = (decision IS NULL) OR status = 'Withdrawn'),
    CHECK (decision IS NULL OR decision IN ('approved', 'rejected') AND kind LIKE 'payment%'
        OR decision IN ('passed', 'failed') AND kind LIKE 'quality%'),
    CHECK (kind <> 'payment_verification' OR invoice_id IS NOT NULL),
    CHECK (kind <> 'payment_refund' OR credit_note_id IS NOT NULL),
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
    WHERE kind = 'payment_review' AND status = 'Open';
CREATE INDEX tasks_reviews ON prepaid.tasks (transaction_id) WHERE kind = 'payment_review';
CREATE UNIQUE INDEX tasks_one_quality_check_per_plan ON prepaid.tasks (service_plan_id)
    WHERE kind = 'quality_check';
CREATE INDEX tasks_by_service_plan ON prepaid.tasks (service_plan_id);
CREATE INDEX tasks_open ON prepaid.tasks (kind, task_id) WHERE status = 'Open';
CREATE INDEX tasks_quality_to_close ON prepaid.tasks (task_id)
    WHERE kind IN ('quality_check', 'quality_follow_up') AND status = 'Done' AND closed_at IS NULL;
-- A month's tasks, for the report. They come in the order of their days: a summary per range of pages
-- costs the process next to nothing.
CREATE INDEX tasks_by_day ON prepaid.tasks USING brin (opened_on) WITH (autosummarize = on);

-- Until when a task is to be decided. Whoever opens one says so: due_on has no default.
CREATE FUNCTION prepaid.task_due_on(opened_on date) RETURNS date LANGUAGE sql STABLE RETURN
    opened_on + (SELECT task_days FROM prepaid.installation);

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
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'task_closed', n.service_plan_id, 'task', n.task_id, n.decision, 'closed', n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE n.closed_at IS NOT NULL AND o.closed_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_task_status AFTER UPDATE ON prepaid.tasks
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_task_status();

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
CREATE TRIGGER task_assignments_append_only BEFORE DELETE OR TRUNCATE
    ON prepaid.task_assignments FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

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

-- 42_approval_rules.sql

-- Who may not decide alone, or not at all: the limits above which two approve, and four eyes.

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

-- Whoever writes, and whatever way: above the limit there is no approval by one alone.
CREATE FUNCTION prepaid.require_two_people() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Without a limit, as in most installations, thousands of rows ask nothing more than that.
    IF EXISTS (SELECT FROM prepaid.approval_limits)
       AND EXISTS (SELECT FROM prepaid.two_person_tasks two WHERE two.task_id = NEW.task_id) THEN
        RAISE EXCEPTION 'task % needs the approval of two people', NEW.task_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER require_two_people BEFORE UPDATE ON prepaid.tasks
    FOR EACH ROW WHEN (NEW.decision = 'approved' AND OLD.decision IS DISTINCT FROM 'approved'
                       AND NEW.first_approved_by IS NULL)
    EXECUTE FUNCTION prepaid.require_two_people();

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
               WHEN 'change_requested' THEN 'opened the plan, as a change of another'
               WHEN 'invoice_void_requested' THEN 'had the invoice voided'
               WHEN 'invoice_void' THEN 'had the invoice voided'
               WHEN 'term_cut' THEN 'cut the term'
               WHEN 'credit_note_issued' THEN 'had the credit note issued'
               ELSE 'cancelled the plan' END AS what
    FROM prepaid.audit_log a
    WHERE a.service_plan_id = k.service_plan_id
      AND a.event IN ('hold_released', 'transaction_assigned', 'change_requested',
                      'cancellation_requested', 'invoice_void_requested', 'invoice_reissue_requested',
                      'service_plan_cancelled', 'term_cut', 'invoice_void', 'credit_note_issued')
      AND NOT (a.event = 'hold_released' AND a.before = 'payment_rejected' AND a.at > k.opened_at)
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

-- 43_sign_offs.sql

-- What people decided, and the one function by which they do.

CREATE TABLE prepaid.sign_offs (
    sign_off_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL REFERENCES prepaid.tasks,
    decision text NOT NULL CHECK (decision IN ('approved', 'rejected', 'passed', 'failed')),
    note text,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sign_offs_by_task ON prepaid.sign_offs (task_id, sign_off_id);
CREATE TRIGGER sign_offs_append_only BEFORE DELETE OR TRUNCATE ON prepaid.sign_offs
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
-- Also for a session that plays a replica (session_replication_role), in which triggers rest.
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER sign_offs_append_only;

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
        RAISE EXCEPTION 'no sign-off of task % by %: only somebody in % can sign it, under their own name',
            wrong.task_id, wrong.decided_by, wrong.assigned_role;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER only_people_sign AFTER INSERT ON prepaid.sign_offs
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.only_people_sign();
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER only_people_sign;

-- Decides tasks for the person who is acting (the role that is set, or the session's user).
-- All or nothing. Returns how many decisions were recorded; the same decision again is not one. Above
-- the limit the first approval leaves the task Open; a rejection needs one person.
CREATE FUNCTION prepaid.decide_tasks(task_ids bigint[], new_decision text, new_note text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp
-- All look-ups are by key, so one plan is right for 1 task and for 3,000; planning again cost as much.
SET plan_cache_mode = force_generic_plan AS $$
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

-- 44_sign_off_tables.sql

-- The two sign-off tables: updatable views over the tasks, by which people decide in plain SQL.

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
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to,
       CASE WHEN i.payable > l.amount THEN 2 ELSE 1 END AS approvals_needed,
       k.first_approved_by, k.first_approved_at, w.why_not, w.why_not IS NULL AS may_decide
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
                AND t.status IS DISTINCT FROM 'Success' AND t.occurred_at >= m.occurred_at
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
                         WHERE m.team = prepaid.team_of('payment_verification')
                           AND m.person = prepaid.acting_person())
            THEN format('only %s decides on payments', k.assigned_role)
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
       concat_ws(', ', CASE WHEN p.quantity > 1 THEN p.quantity || ' × ' ELSE '' END || p.plan_name, (
           SELECT string_agg(CASE WHEN (a ->> 'quantity')::integer > 1
                                  THEN a ->> 'quantity' || ' × ' ELSE '' END || (a ->> 'name'),
                             ', ' ORDER BY n)
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

-- 45_parked_payments.sql

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
-- customer or by the number: never by the amount alone, which many invoices share. (NOT MATERIALIZED: who
-- asks about some records does not wait for the others.)
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

-- Finance says which invoice a parked record pays. The record stays as it was delivered; who assigned
-- it is noted, and match_payments judges it again. It may be over more than the invoice.
CREATE FUNCTION prepaid.assign_record(record bigint, to_invoice text, reason text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('assign payments', reason);
    paid prepaid.transactions;
    asked prepaid.invoices;
BEGIN
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
        RAISE EXCEPTION 'payment record % has the amount %: it pays nothing', record, paid.amount;
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

-- 46_holds.sql

-- Plans that wait for a person to put something right, and their release.

-- Why a plan can be held, and what a person does about it. A hold that is about money is released by
-- those who may do that alone (prepaid.teams); one that is about an invoice ends when it is voided.
CREATE TABLE prepaid.hold_reasons (
    reason_code text PRIMARY KEY,
    about_money boolean NOT NULL,
    about_invoice boolean NOT NULL,
    advice text NOT NULL
);
INSERT INTO prepaid.hold_reasons (reason_code, about_money, about_invoice, advice) VALUES
    ('no_email', false, false,
     'add the customer''s address (on the plan''s page at the sign-off desk, or customers.csv)'),
    ('no_price', false, false,
     'give the plan a price in that currency that is valid on the term''s first day, or give '
     'the subscription its own'),
    ('no_addon_price', false, false,
     'add the add-on''s price for that term length, currency and day'),
    ('no_tax_rate', false, false,
     'add the rate of that country and tax class; a missing rate is never taken to be 0 %'),
    ('payment_rejected', true, true,
     'clear it up with the customer; releasing opens a new task on the same invoice'),
    ('payment_mismatch', true, true,
     'the matched record no longer fits the invoice: ask the payment provider'),
    ('payment_reversed', true, true,
     'the payment was refunded, charged back or failed after all. The hold ends when a payment '
     'stands again, when the plan is cancelled at once, or, once the term is over, when the '
     'invoice is voided; it cannot be released by hand'),
    ('subscription_cancelled', false, false,
     'the customer left after the term was opened: ask; releasing continues with the term'),
    ('overlapping_term', false, false,
     'cancel one of the two terms'),
    ('change_paid_late', true, false,
     'a change of plan was paid after the days of grace: release it (the days used meanwhile '
     'are given away) or cancel the plan'),
    ('credit_not_paid', true, false,
     'the days that pay for a change of plan were charged back: clear that up, or cancel the '
     'plan'),
    ('credit_differs', true, false,
     'the tax rates at which imported days were credited have been changed: correct them, or '
     'cancel the plan'),
    ('invoice_voided', true, false,
     'finance voided the invoice: release the hold for a new one, or cancel the plan'),
    ('quality_failed', false, false,
     'fix the feature and decide the follow-up task; it does not block the next renewal'),
    ('step_failed', false, false,
     'correct the data that the text names');

-- A held plan keeps its status and leaves its batch; when a person releases it, it continues where
-- it stopped.
CREATE TABLE prepaid.holds (
    hold_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_plan_id bigint NOT NULL REFERENCES prepaid.service_plans,
    reason_code text NOT NULL REFERENCES prepaid.hold_reasons,
    text text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    released_by text,
    note text,
    CHECK ((released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX holds_one_live_per_reason ON prepaid.holds (service_plan_id, reason_code)
    WHERE released_at IS NULL;

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

-- Plans that wait for a person to put something right. The text says what can be done.
CREATE VIEW prepaid.held_plans AS
SELECT h.hold_id, h.service_plan_id, p.status, c.customer_ref, c.name AS customer_name, l.name AS plan_name,
       i.invoice_number, h.reason_code, h.text, h.held_at,
       (SELECT string_agg(t.team, ', ' ORDER BY t.team) FROM prepaid.teams t
        WHERE CASE WHEN r.about_money THEN 'release holds about money' ELSE 'release holds' END
            = ANY (t.may)) AS released_by_team
FROM prepaid.holds h
JOIN prepaid.hold_reasons r USING (reason_code)
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.plans l ON l.plan_id = p.plan_id
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE h.released_at IS NULL;

-- Releases every live hold of a plan under the acting person's name; the plan continues where it stopped.
-- A released rejection opens a new verification task on the same invoice. Not everybody may release holds
-- about money; a payment that was taken back is not made good by releasing. Returns the holds released.
CREATE FUNCTION prepaid.release_holds(plan bigint, release_note text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_may('release holds');
    about_money CONSTANT text[] := prepaid.teams_that_may('release holds about money');
    released integer;
    rejected boolean;
    reversed boolean;
    money text;
    unpaid text;
BEGIN
    IF coalesce(release_note, '') !~ '\S' THEN
        RAISE EXCEPTION 'releasing a hold needs a note that says what was done';
    END IF;
    -- What was released is asked of the release itself: a rejection at this very moment is either
    -- among it or stays a hold.
    WITH freed AS (
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = release_note
        WHERE h.service_plan_id = plan AND h.released_at IS NULL
        RETURNING h.reason_code
    )
    SELECT count(*), bool_or(reason_code = 'payment_rejected'), bool_or(reason_code = 'payment_reversed'),
           string_agg(reason_code, ', ' ORDER BY reason_code) FILTER (WHERE r.about_money)
    INTO released, rejected, reversed, money FROM freed JOIN prepaid.hold_reasons r USING (reason_code);
    IF released = 0 THEN
        RAISE EXCEPTION 'service plan % is not held', plan;
    END IF;
    IF money IS NOT NULL AND NOT prepaid.is_in_team(person, VARIADIC about_money) THEN
        RAISE EXCEPTION '% may not release %: it is about money, only % can', person, money,
            array_to_string(about_money, ' and ');
    END IF;
    SELECT i.invoice_number INTO unpaid FROM prepaid.invoices i
    WHERE i.service_plan_id = plan AND i.status = 'Open' AND reversed;
    IF FOUND THEN
        RAISE EXCEPTION 'the payment of invoice % was reversed, and releasing does not pay it: the hold ends '
            'with a payment that stands, when the plan is cancelled at once, or, once the term is over, '
            'when the invoice is voided', unpaid;
    END IF;
    IF rejected THEN
        UPDATE prepaid.tasks k SET status = 'Withdrawn'
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND k.invoice_id = i.invoice_id
          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
          AND k.decision IS DISTINCT FROM 'approved';
        INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on, due_on)
        SELECT 'payment_verification', plan, i.invoice_id, prepaid.team_of('payment_verification'),
               prepaid.today(), prepaid.task_due_on(prepaid.today())
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND i.payable > 0
          AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn');
    END IF;
    RETURN released;
END $$;

-- 50_mail.sql

-- The outbox. Step 10 orders a mail here; the job send_emails renders, stores and sends it.

CREATE TABLE prepaid.emails (
    email_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Null for a mail to our own people, which is about no one plan.
    service_plan_id bigint REFERENCES prepaid.service_plans,
    template text NOT NULL,
    -- What makes two mails of one template for one plan different (the step, or a reminder's day).
    occasion text NOT NULL,
    recipient text NOT NULL,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'sending', 'sent', 'failed', 'unknown', 'dropped')),
    -- The bytes are stored before the first attempt: every attempt sends the same mail.
    message_id text UNIQUE,
    content bytea,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_until timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at timestamptz,
    -- The invoice that the mail is about; null for a mail about the plan and its live invoice.
    invoice_id bigint REFERENCES prepaid.invoices,
    -- Attempts that ended between the last byte of the mail and the server's answer: each may have
    -- delivered it. After the second a person decides, so that there is at most one extra copy.
    unknown_attempts integer NOT NULL DEFAULT 0,
    -- Since when the server puts it off; null again when a person sends it again.
    deferred_since timestamptz,
    -- How often its address was corrected: each time it is written again, as another message.
    corrections integer NOT NULL DEFAULT 0,
    UNIQUE (service_plan_id, template, occasion),
    -- A mail that could not even be written has failed without content. One is dropped when what it
    -- was to say was no longer true before it could be sent.
    CHECK (status IN ('pending', 'failed', 'dropped') OR content IS NOT NULL),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL)),
    CONSTRAINT emails_to_our_people_are_about_no_plan CHECK (
        (service_plan_id IS NULL) = (template IN ('overdue_tasks', 'monthly_report')))
);
-- Most of it is a PDF in base64, which does not get smaller; trying to took as long as sending.
ALTER TABLE prepaid.emails ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX emails_to_our_people_once ON prepaid.emails (template, occasion, recipient)
    WHERE service_plan_id IS NULL;
CREATE INDEX emails_to_send ON prepaid.emails (next_attempt_at, email_id)
    WHERE status IN ('pending', 'sending');
CREATE INDEX emails_undelivered ON prepaid.emails (email_id) WHERE status IN ('failed', 'unknown');

CREATE FUNCTION prepaid.audit_email_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'email_' || n.status, n.service_plan_id, 'email', n.email_id, o.status, n.status,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.status <> o.status
      AND (n.status IN ('sent', 'failed', 'unknown', 'dropped') OR o.status IN ('failed', 'unknown'));
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'email_attempt_unknown', n.service_plan_id, 'email', n.email_id, o.status, n.status,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.unknown_attempts > o.unknown_attempts AND n.status <> 'unknown';
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, detail, actor, run_id, as_of)
    SELECT 'email_address_corrected', n.service_plan_id, 'email', n.email_id,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.corrections > o.corrections;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_email_status AFTER UPDATE ON prepaid.emails
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_email_status();

-- Which open tasks a mail to our own people is about. Nobody is reminded of the same task in the same
-- stage twice.
CREATE TABLE prepaid.task_reminders (
    task_id bigint NOT NULL REFERENCES prepaid.tasks,
    stage text NOT NULL CHECK (stage IN ('overdue', 'escalated')),
    recipient text NOT NULL,
    email_id bigint NOT NULL REFERENCES prepaid.emails,
    reminded_on date NOT NULL,
    PRIMARY KEY (task_id, stage, recipient)
);
CREATE INDEX task_reminders_by_email ON prepaid.task_reminders (email_id);

-- 51_undelivered_mail.sql

-- What support does about emails that failed permanently, or of which nobody knows whether they arrived.

-- Support's list: what failed permanently, and what may or may not have arrived.
CREATE VIEW prepaid.undelivered_mails AS
SELECT e.email_id, e.status, e.template, e.occasion, e.recipient, e.created_at, e.attempts,
       e.unknown_attempts, e.last_error, e.service_plan_id, c.customer_ref, c.name AS customer_name,
       coalesce(p.plan_name, l.name) AS plan_name, i.invoice_number
FROM prepaid.emails e
LEFT JOIN prepaid.service_plans p USING (service_plan_id)
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.plans l ON l.plan_id = p.plan_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id
    AND CASE WHEN e.invoice_id IS NULL THEN i.status <> 'Void' ELSE i.invoice_id = e.invoice_id END
WHERE e.status IN ('failed', 'unknown');

-- Locks the mails that a person named and refuses the first that is not in one of ``states``, for an
-- action such as 'be sent again'.
CREATE FUNCTION prepaid.require_emails(email_ids bigint[], states text[], action text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    refused record;
BEGIN
    PERFORM FROM prepaid.emails e WHERE e.email_id = ANY (email_ids) ORDER BY e.email_id FOR UPDATE;
    SELECT asked.email_id, e.status INTO refused
    FROM unnest(email_ids) asked (email_id)
    LEFT JOIN prepaid.emails e USING (email_id)
    WHERE e.status <> ALL (states) OR e.status IS NULL ORDER BY asked.email_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'email % cannot %: %', refused.email_id, action, coalesce(
            'only ' || array_to_string(states, ' and ') || ' ones can, and it is ' || refused.status,
            'there is no such email');
    END IF;
END $$;

-- Sends failed and unknown mails again under the acting person's name, all or nothing: what was
-- written is sent as it was, the same bytes with the same Message-ID. One that may have arrived gets
-- one more attempt of unknown outcome, no two. Returns how many.
CREATE FUNCTION prepaid.resend_emails(email_ids bigint[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    resent integer;
BEGIN
    PERFORM prepaid.person_who_may('resend emails');
    PERFORM prepaid.require_emails(email_ids, ARRAY['failed', 'unknown'], 'be sent again');
    UPDATE prepaid.emails e
    SET status = 'pending', attempts = 0, next_attempt_at = clock_timestamp(), deferred_since = NULL,
        unknown_attempts = least(e.unknown_attempts, 1)
    WHERE e.email_id = ANY (email_ids);
    GET DIAGNOSTICS resent = ROW_COUNT;
    RETURN resent;
END $$;

-- Takes mails off the list without sending them, all or nothing, with the reason: an unknown one has
-- arrived and counts as sent, a failed one is not needed any more and is dropped. Returns how many.
CREATE FUNCTION prepaid.settle_emails(email_ids bigint[], why text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('settle emails', why);
    settled integer;
BEGIN
    PERFORM prepaid.require_emails(email_ids, ARRAY['failed', 'unknown'], 'be settled');
    UPDATE prepaid.emails e
    SET status = CASE e.status WHEN 'unknown' THEN 'sent' ELSE 'dropped' END,
        sent_at = CASE e.status WHEN 'unknown' THEN clock_timestamp() END,
        last_error = concat_ws('; ', e.last_error, format('settled by %s: %s', person, why))
    WHERE e.email_id = ANY (email_ids);
    GET DIAGNOSTICS settled = ROW_COUNT;
    RETURN settled;
END $$;

-- Sends a failed email to another address: it is written again, as another message. The customer gets
-- that address for later mails too.
CREATE FUNCTION prepaid.correct_email_address(mail bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_who_says_why('change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not a valid email address', address;
    END IF;
    -- Of an unknown one a copy may be where it was sent: it stays the mail that it is.
    PERFORM prepaid.require_emails(ARRAY[mail], ARRAY['failed'], 'go to another address');
    IF EXISTS (SELECT FROM prepaid.emails WHERE email_id = mail AND service_plan_id IS NULL) THEN
        RAISE EXCEPTION 'email % is to one of our own staff: their address is changed with prepaid user add',
            mail;
    END IF;
    UPDATE prepaid.emails
    SET status = 'pending', attempts = 0, next_attempt_at = clock_timestamp(), deferred_since = NULL,
        recipient = address, corrections = corrections + 1, message_id = NULL, content = NULL
    WHERE email_id = mail;
    UPDATE prepaid.customers c SET email = address
    FROM prepaid.emails e JOIN prepaid.service_plans p USING (service_plan_id)
    WHERE e.email_id = mail AND c.customer_id = p.customer_id AND c.email IS DISTINCT FROM address;
END $$;

-- 60_queues.sql

-- Which plans wait for the pipeline, and which batch has them in hand. Claims and sensors read the same
-- views, so that a sensor never asks for a run that would find nothing, and never misses one.

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

-- What the pipeline is not done with: each plan from its opening until step 11, and again when its
-- payment is taken back; and which batch has claimed it. A row of its own, because a claim on the plan
-- itself would rewrite all of its columns and indexes. No foreign keys, which would cost a look-up
-- per plan and claim: rows come from a trigger on service_plans, and a batch is never deleted. No index
-- on the batch: without it a claim stays on its page, for which the pages are kept half empty.
CREATE TABLE prepaid.unsettled_plans (
    service_plan_id bigint PRIMARY KEY,
    batch_id bigint
) WITH (fillfactor = 50);

CREATE FUNCTION prepaid.note_unsettled_plans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.unsettled_plans (service_plan_id)
    SELECT service_plan_id FROM new_rows WHERE status = 'Pending';
    RETURN NULL;
END $$;
CREATE TRIGGER note_unsettled_plans AFTER INSERT ON prepaid.service_plans
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.note_unsettled_plans();

-- Steps 1-5. Whether the plan is due (lead days before its start) depends on the business date.
CREATE VIEW prepaid.ready_to_invoice AS
SELECT p.service_plan_id, p.planned_start, p.term_days, u.batch_id
FROM prepaid.service_plans p
JOIN prepaid.unsettled_plans u USING (service_plan_id)
WHERE p.invoiced_at IS NULL AND p.status IN ('Pending', 'Processing')
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = u.batch_id AND b.leased_until > clock_timestamp())
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL);

-- Steps 6-11: invoiced, the record matched and the payment approved (or nothing to pay). A plan whose
-- payment was taken back after activation comes here again when it is paid again.
CREATE VIEW prepaid.ready_to_settle AS
SELECT p.service_plan_id, u.batch_id
FROM prepaid.unsettled_plans u
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE p.invoiced_at IS NOT NULL
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
  -- The batch that invoiced it is done with it, whatever its lease.
  AND NOT EXISTS (SELECT FROM prepaid.batches b
                  WHERE b.batch_id = u.batch_id AND b.queue = 'settle_renewals'
                    AND b.leased_until > clock_timestamp())
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
WHERE p.status = 'Pending' AND p.invoiced_at IS NOT NULL
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

-- 61_requests.sql

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
CREATE TRIGGER requests_append_only BEFORE DELETE OR TRUNCATE ON prepaid.requests
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

-- 62_cancellation.sql

-- Leaving: at the end of the term, or at once with credit for the days that are not used.

-- What comes before plans are cancelled that were never activated (check_plan_transition refuses it
-- otherwise): they leave the queue, nobody is asked to pay or to verify any more, money that has arrived
-- for them goes to finance as a task, their holds end, and what a change of plan changed is taken back.
CREATE FUNCTION prepaid.close_waiting_plans(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- The plan before its place in the queue, as the steps do.
    PERFORM FROM prepaid.service_plans p WHERE p.service_plan_id = ANY (plans)
    ORDER BY p.service_plan_id FOR NO KEY UPDATE;
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = ANY (plans);
    PERFORM prepaid.void_open_invoices(plans);
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = ANY (plans) AND released_at IS NULL;
    PERFORM prepaid.take_back_change(p.service_plan_id) FROM prepaid.service_plans p
    WHERE p.service_plan_id = ANY (plans) AND p.kind = 'change';
END $$;

-- Cancels a plan that was not activated yet. An invoice that is paid already is credited in full. (Its
-- own credit, from a change of plan that now never happens, is no money that came from the customer.)
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
    PERFORM prepaid.close_waiting_plans(ARRAY[plan]);
    UPDATE prepaid.service_plans
    SET status = 'Cancelled',
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
    SET full_end_date = coalesce(full_end_date, end_date), end_date = cut_on, status = 'Cancelled'
    WHERE service_plan_id = plan;
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = plan;
    IF EXISTS (SELECT FROM prepaid.invoices WHERE service_plan_id = plan AND status = 'Open') THEN
        PERFORM prepaid.void_open_invoices(ARRAY[plan]);
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
        RAISE EXCEPTION 'service plan % was paid with credit of invoice %, whose payment was reversed: '
            '%wait for the end of the term, %', doubtful.service_plan_id, doubtful.invoice_number,
            CASE doubtful.status WHEN 'Open' THEN 'have it paid again first, or ' ELSE '' END,
            doubtful.end_date;
    ELSIF NOT doubtful.earlier THEN
        RAISE EXCEPTION 'the payment of invoice % was reversed, and its credit of % % would be lost: '
            'have it paid again first, or wait for the end of the term, %', doubtful.invoice_number,
            doubtful.credit, doubtful.currency, doubtful.end_date;
    END IF;
END $$;

-- Cancels a subscription, or one plan of it, for the person who is acting.
-- Returns what happened to each plan: it ends, ended or never begins; on which day; the credit note.
CREATE FUNCTION prepaid.cancel(
    subscription bigint, plan bigint, at_once boolean, on_date date, why text
) RETURNS TABLE (service_plan_id bigint, outcome text, ends_on date, credit_note_number text,
                 currency text, credited numeric, refund numeric)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
#variable_conflict use_column
DECLARE
    person text := prepaid.person_who_says_why('cancel plans', why);
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
            RAISE EXCEPTION '% is in the future: cancel on that day, or at the end of the term', on_date;
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
            RAISE EXCEPTION 'subscription % is already cancelled, as of %',
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

-- 63_change_of_plan.sql

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

-- Changes the plan of a subscription for the person who is acting: at the next
-- renewal (on_date null), or on a day inside the running term. Then a plan of kind change is
-- opened; when it is paid, step 8 cuts the running term where it starts. Returns the plan that was
-- opened, or the waiting renewal that the change meets.
CREATE FUNCTION prepaid.change_plan(
    subscription bigint, new_plan text, new_price numeric, new_addons text[], on_date date, why text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('change plans', why);
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
        RAISE EXCEPTION 'subscription % already has that plan, price and add-ons', s.subscription_ref;
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
                'cancel it at once (all of it is refunded) and buy again', s.subscription_ref, on_date;
        ELSIF s.cancelled_on IS NOT NULL THEN
            RAISE EXCEPTION 'subscription % is cancelled as of %: undo that first (import '
                'subscriptions.csv), or wait for the end', s.subscription_ref, s.cancelled_on;
        ELSIF later.service_plan_id IS NOT NULL THEN
            RAISE EXCEPTION 'the next term (service plan %, % to %) is already paid: change it from % on, '
                'or cancel it at once first (all of it is refunded)', later.service_plan_id,
                later.start_date, later.end_date, later.start_date + 1;
        ELSIF running.origin = 'pipeline' AND NOT EXISTS (
            SELECT FROM prepaid.invoices i
            WHERE i.service_plan_id = running.service_plan_id AND i.status = 'Paid') THEN
            RAISE EXCEPTION 'the payment of the running term (service plan %) was reversed: clear that '
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
        RAISE EXCEPTION 'another service plan followed % at this moment: check, and try again',
            running.service_plan_id;
    END IF;
    INSERT INTO prepaid.requests (kind, subscription_id, service_plan_id, asked_on, effective_on, note,
                                  asked_by, before, after)
    VALUES ('change', subscription, opened, today, on_date, why, person, before, after);
    RETURN coalesce(opened, waiting.service_plan_id);
END $$;

-- 70_desk_sign_in.sql

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

-- 71_desk_pages.sql

-- What the pages show beside the sign-off tables (how much waits, how long it takes, what was decided, a
-- plan's whole story), and what their forms call beside decide_tasks.

-- Open tasks per team and kind, for the acting person's own teams (some see all).
CREATE VIEW prepaid.desk_overview AS
SELECT k.assigned_role AS team, k.kind, count(*) AS open, min(k.opened_on) AS oldest,
       count(*) FILTER (WHERE k.due_on < prepaid.today()) AS overdue,
       count(*) FILTER (WHERE k.assigned_to = prepaid.acting_person()) AS mine
FROM prepaid.tasks k
WHERE k.status = 'Open' AND EXISTS (
    SELECT FROM prepaid.team_members m
    WHERE m.person = prepaid.acting_person()
      AND (m.team = k.assigned_role OR 'see all tasks' = ANY (m.may)))
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

-- Every sign-off that was ever made, for the acting person's own teams (some see all).
CREATE VIEW prepaid.decisions AS
SELECT s.sign_off_id, s.task_id, k.kind, k.assigned_role AS team, k.service_plan_id, c.customer_ref,
       i.invoice_number, i.currency, i.payable, s.decision, s.note, s.decided_by, s.decided_at
FROM prepaid.sign_offs s
JOIN prepaid.tasks k USING (task_id)
LEFT JOIN prepaid.service_plans p ON p.service_plan_id = k.service_plan_id
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.invoice_id = k.invoice_id
WHERE EXISTS (SELECT FROM prepaid.team_members m
              WHERE m.person = prepaid.acting_person()
                AND (m.team = k.assigned_role OR 'see all tasks' = ANY (m.may)));

-- Everything about one plan: ask for a service_plan_id. The audit log is the thread; records,
-- sign-offs, holds and mails add their own words. place and id order what happened at one moment.
CREATE VIEW prepaid.plan_events AS
SELECT a.service_plan_id, a.at, a.event, a.actor,
       concat_ws(' ', a.before || ' ->',
           CASE a.event WHEN 'hold_released' THEN 'released' ELSE a.after END,
           '(' || CASE a.event WHEN 'hold_released' THEN h.note ELSE a.detail END || ')',
           CASE a.event WHEN 'hold_placed' THEN h.text END, q.note, r.assigned_note) AS what,
       1 AS place, a.audit_id AS id
FROM prepaid.audit_log a
LEFT JOIN prepaid.holds h ON a.entity = 'hold' AND h.hold_id = a.entity_id
LEFT JOIN prepaid.requests q ON a.entity = 'request' AND q.request_id = a.entity_id
LEFT JOIN prepaid.transactions r ON a.event = 'transaction_assigned' AND r.transaction_id = a.entity_id
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

-- The features of a quality check one by one, so that a person can say which of them failed.
CREATE VIEW prepaid.quality_features AS
SELECT k.task_id, 0 AS place, p.plan_name AS feature, p.quantity::bigint AS quantity
FROM prepaid.tasks k JOIN prepaid.service_plans p USING (service_plan_id)
WHERE k.kind LIKE 'quality%'
UNION ALL
SELECT k.task_id, a.place, a.addon ->> 'name', coalesce((a.addon ->> 'quantity')::bigint, 1)
FROM prepaid.tasks k JOIN prepaid.service_plans p USING (service_plan_id)
CROSS JOIN LATERAL jsonb_array_elements(p.addons) WITH ORDINALITY a (addon, place)
WHERE k.kind LIKE 'quality%';

-- Whom an open task can be handed to: the names of its team.
CREATE VIEW prepaid.colleagues AS
SELECT m.team, m.person FROM prepaid.team_members m
WHERE m.team IN (SELECT own.team FROM prepaid.team_members own WHERE own.person = prepaid.acting_person());

-- Decides what a person saw: each task with the latest sign-off that the page showed (0: none). If
-- somebody was faster nothing is decided, and the error says who it was. With agreeing_only every
-- payment must still agree. Returns how many decisions were recorded.
CREATE FUNCTION prepaid.decide_as_seen(
    task_ids bigint[], seen bigint[], new_decision text, new_note text, agreeing_only boolean
) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    changed record;
BEGIN
    IF cardinality(task_ids) IS DISTINCT FROM cardinality(seen) THEN
        RAISE EXCEPTION 'every task needs what was seen of it';
    END IF;
    PERFORM FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id FOR UPDATE;

    SELECT asked.task_id, last.decided_by, last.decision, count(*) OVER () AS others INTO changed
    FROM unnest(task_ids, seen) asked (task_id, seen)
    CROSS JOIN LATERAL (
        SELECT s.sign_off_id, s.decided_by, s.decision FROM prepaid.sign_offs s
        WHERE s.task_id = asked.task_id ORDER BY s.sign_off_id DESC LIMIT 1) last
    WHERE last.sign_off_id > asked.seen
    ORDER BY asked.task_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'nothing was recorded: % % task % while you looked%', changed.decided_by,
            changed.decision, changed.task_id,
            CASE WHEN changed.others > 1 THEN format(', and %s more were decided', changed.others - 1)
                 ELSE '' END;
    END IF;

    IF agreeing_only THEN
        SELECT v.invoice_number, v.difference, count(*) OVER () AS others INTO changed
        FROM unnest(task_ids) asked (task_id)
        CROSS JOIN LATERAL (SELECT * FROM prepaid.payment_verifications
                            WHERE task_id = asked.task_id OFFSET 0) v
        WHERE NOT v.agrees ORDER BY v.task_id LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'nothing was recorded: the payment of invoice % no longer agrees (%)%',
                changed.invoice_number, changed.difference,
                CASE WHEN changed.others > 1 THEN format(', nor do %s more', changed.others - 1)
                     ELSE '' END;
        END IF;
    END IF;
    RETURN prepaid.decide_tasks(task_ids, new_decision, new_note);
END $$;

-- Gives the customer of a plan an address, for the person who is acting: what a plan that is held for want of one needs. Plans whose details were taken before keep theirs.
CREATE FUNCTION prepaid.set_customer_email(plan bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_who_says_why('change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not a valid email address', address;
    END IF;
    UPDATE prepaid.customers c SET email = address
    FROM prepaid.service_plans p WHERE p.service_plan_id = plan AND c.customer_id = p.customer_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service plan %', plan;
    END IF;
END $$;

-- 80_monthly_figures.sql

-- Monthly figures: what was earned, what began, what was taken back. A month is named by its first day.

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
    -- Of what the figures were made from, and when that was read.
    fingerprint text,
    computed_at timestamptz,
    CHECK (as_of >= month)
);
CREATE UNLOGGED TABLE revenue.months_staging (
    run_id text NOT NULL,
    month date,
    as_of date,
    staged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    fingerprint text
);

-- What the rules of a run came to: those of its input tables, of the figures, of the report.
CREATE TABLE revenue.check_results (
    run_id text NOT NULL,
    stage text NOT NULL CHECK (stage IN ('inputs', 'figures', 'report')),
    asset text NOT NULL,
    rule text NOT NULL,
    place integer NOT NULL,
    is_warning boolean NOT NULL,
    passed boolean NOT NULL,
    failing bigint NOT NULL,
    as_of date NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, stage, asset, rule)
);
CREATE INDEX check_results_by_time ON revenue.check_results (stage, checked_at);

-- Monthly recurring revenue on the month's last day (the current month: as of its cut-off).
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

-- The same revenue by the country of the customer, as it was when the term was invoiced or imported;
-- '' where the term does not say. customers: those with revenue there; one who has terms of two
-- countries is in both.
CREATE TABLE revenue.mrr_by_country (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    country text NOT NULL CHECK (country ~ '^([A-Z]{2})?$'),
    active_plans bigint NOT NULL CHECK (active_plans > 0),
    customers bigint NOT NULL CHECK (customers BETWEEN 0 AND active_plans),
    mrr numeric NOT NULL CHECK (mrr >= 0),
    PRIMARY KEY (month, currency, country)
);
CREATE UNLOGGED TABLE revenue.mrr_by_country_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    country text,
    active_plans bigint,
    customers bigint,
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
-- term's price without tax, one-time fees included, also of a term that was cut short later.
CREATE TABLE revenue.plan_activations (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    plan_code text NOT NULL REFERENCES prepaid.plans (plan_code),
    kind text NOT NULL CHECK (kind IN ('new', 'renewal', 'reactivation', 'change')),
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

CREATE TABLE revenue.activations_by_country (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    country text NOT NULL CHECK (country ~ '^([A-Z]{2})?$'),
    kind text NOT NULL CHECK (kind IN ('new', 'renewal', 'reactivation', 'change')),
    plans bigint NOT NULL CHECK (plans > 0),
    net_amount numeric NOT NULL CHECK (net_amount >= 0),
    PRIMARY KEY (month, currency, country, kind)
);
CREATE UNLOGGED TABLE revenue.activations_by_country_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    country text,
    kind text,
    plans bigint,
    net_amount numeric
);

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

-- One run's staged rows, the run being the session's (setting prepaid.run_id): what is validated.
CREATE VIEW revenue.staged_months AS
    SELECT * FROM revenue.months_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_mrr AS
    SELECT * FROM revenue.mrr_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_mrr_by_country AS
    SELECT * FROM revenue.mrr_by_country_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_mrr_movements AS
    SELECT * FROM revenue.mrr_movements_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_mrr_bridge AS
    SELECT * FROM revenue.mrr_bridge_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_plan_activations AS
    SELECT * FROM revenue.plan_activations_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_activations_by_country AS
    SELECT * FROM revenue.activations_by_country_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_payment_reversals AS
    SELECT * FROM revenue.payment_reversals_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_credit_notes_issued AS
    SELECT * FROM revenue.credit_notes_issued_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_control AS
    SELECT * FROM revenue.control_staging WHERE run_id = prepaid.run_id();

-- 81_retention.sql

-- The outcome of the terms that ended, and how many of earlier customers remain.

-- Terms that ended in the month, by what came after each: exactly one of the six outcomes.
CREATE TABLE revenue.renewal_outcomes (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    plan_code text NOT NULL REFERENCES prepaid.plans (plan_code),
    country text NOT NULL,
    due bigint NOT NULL CHECK (due > 0),
    on_time bigint NOT NULL CHECK (on_time >= 0),
    in_grace bigint NOT NULL CHECK (in_grace >= 0),
    reactivated bigint NOT NULL CHECK (reactivated >= 0),
    cancelled bigint NOT NULL CHECK (cancelled >= 0),
    waiting bigint NOT NULL CHECK (waiting >= 0),
    lapsed bigint NOT NULL CHECK (lapsed >= 0),
    PRIMARY KEY (month, currency, plan_code, country),
    CHECK (on_time + in_grace + reactivated + cancelled + waiting + lapsed = due)
);
CREATE UNLOGGED TABLE revenue.renewal_outcomes_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    plan_code text,
    country text,
    due bigint,
    on_time bigint,
    in_grace bigint,
    reactivated bigint,
    cancelled bigint,
    waiting bigint,
    lapsed bigint
);

-- The customers with MRR a window of months ago, and what is left of them and of their MRR: mrr_kept
-- counts each customer's MRR of now up to what it was, mrr_now all of it.
CREATE TABLE revenue.retention (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    window_months smallint NOT NULL CHECK (window_months IN (1, 12)),
    customers_before bigint NOT NULL CHECK (customers_before > 0),
    customers_kept bigint NOT NULL CHECK (customers_kept >= 0),
    mrr_before numeric NOT NULL CHECK (mrr_before > 0),
    mrr_kept numeric NOT NULL CHECK (mrr_kept >= 0),
    mrr_now numeric NOT NULL CHECK (mrr_now >= 0),
    PRIMARY KEY (month, currency, window_months),
    CHECK (customers_kept <= customers_before),
    CHECK (mrr_kept <= mrr_before AND mrr_kept <= mrr_now)
);
CREATE UNLOGGED TABLE revenue.retention_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    window_months smallint,
    customers_before bigint,
    customers_kept bigint,
    mrr_before numeric,
    mrr_kept numeric,
    mrr_now numeric
);

-- The same since a customer's first month with MRR, which is the cohort.
CREATE TABLE revenue.cohorts (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    cohort date NOT NULL CHECK (extract(day FROM cohort) = 1),
    customers bigint NOT NULL CHECK (customers > 0),
    customers_kept bigint NOT NULL CHECK (customers_kept >= 0),
    mrr numeric NOT NULL CHECK (mrr > 0),
    mrr_kept numeric NOT NULL CHECK (mrr_kept >= 0),
    mrr_now numeric NOT NULL CHECK (mrr_now >= 0),
    PRIMARY KEY (month, currency, cohort),
    CHECK (cohort <= month),
    CHECK (customers_kept <= customers),
    CHECK (mrr_kept <= mrr AND mrr_kept <= mrr_now)
);
CREATE UNLOGGED TABLE revenue.cohorts_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    cohort date,
    customers bigint,
    customers_kept bigint,
    mrr numeric,
    mrr_kept numeric,
    mrr_now numeric
);

-- The outcome of a term: who followed in time, within its days of grace or later, else who had left, and
-- whom there is still time for on as_of. next_…: the term that followed, null for none.
CREATE FUNCTION revenue.renewal_outcome(
    ended_on date, grace_days integer, status text, cancelled_on date, next_kind text,
    next_began_on date, as_of date
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN next_began_on <= ended_on THEN 'on_time'
         WHEN next_kind = 'reactivation'
              OR next_kind = 'change' AND next_began_on > ended_on + grace_days THEN 'reactivated'
         WHEN next_kind IS NOT NULL THEN 'in_grace'
         WHEN status = 'Cancelled' OR cancelled_on <= ended_on THEN 'cancelled'
         WHEN as_of <= ended_on + grace_days THEN 'waiting'
         ELSE 'lapsed' END;

-- The terms that ended in these months, seen on as_of, each with its outcome: what the table above
-- counts. Every term that began is due once, when it ends, unless a change of plan took its place.
-- renewed_by is the term that followed. Who comes back after the month's days of grace counts where
-- it happens, as a reactivation, and no longer here: a month that is closed stays as it was.
CREATE FUNCTION revenue.terms_due(first_month date, last_month date, as_of date)
RETURNS TABLE (service_plan_id bigint, month date, currency text, plan_id bigint, country text,
               ended_on date, outcome text, renewed_by bigint)
LANGUAGE sql STABLE AS $$
    SELECT due.service_plan_id, date_trunc('month', due.end_date::timestamp)::date, due.currency,
           due.plan_id, coalesce(due.country, ''), due.end_date,
           revenue.renewal_outcome(
               due.end_date, prepaid.days_within_term(i.grace_days, due.term_days), due.status,
               s.cancelled_on, next.kind, greatest(next.start_date, next.activated_on),
               terms_due.as_of),
           next.service_plan_id
    FROM prepaid.service_plans due
    JOIN prepaid.subscriptions s ON s.subscription_id = due.subscription_id
    CROSS JOIN prepaid.installation i
    LEFT JOIN prepaid.service_plans next
        ON next.previous_plan_id = due.service_plan_id AND next.activated_on <= terms_due.as_of
        AND next.activated_on < date_trunc('month', due.end_date::timestamp)
                                + make_interval(months => 1, days => i.grace_days)
        AND (next.end_date > next.start_date OR next.activated_on >= next.start_date)
    WHERE due.activated_on <= terms_due.as_of
      AND due.end_date >= terms_due.first_month AND due.end_date <= terms_due.as_of
      AND due.end_date < terms_due.last_month + interval '1 month'
      -- Cut by a change of plan: the customer goes on with another term.
      AND (due.full_end_date IS NULL OR due.status = 'Cancelled')
      -- Paid in advance and cancelled before its first day, it never began.
      AND (due.end_date > due.start_date OR due.activated_on >= due.start_date)
$$;

CREATE VIEW revenue.staged_renewal_outcomes AS
    SELECT * FROM revenue.renewal_outcomes_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_retention AS
    SELECT * FROM revenue.retention_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_cohorts AS
    SELECT * FROM revenue.cohorts_staging WHERE run_id = prepaid.run_id();

-- 82_deferred_revenue.sql

-- Prepaid money is owed service: what was billed and not yet served, and how it agrees with invoices
-- and with cash. Amounts here have the currency's decimals.

CREATE TABLE revenue.deferred_revenue (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    opening numeric NOT NULL CHECK (opening >= 0),
    billed numeric NOT NULL CHECK (billed >= 0),
    recognised numeric NOT NULL,
    refunded numeric NOT NULL CHECK (refunded >= 0),
    closing numeric NOT NULL CHECK (closing >= 0),
    PRIMARY KEY (month, currency),
    CHECK (opening + billed - recognised - refunded = closing)
);
CREATE UNLOGGED TABLE revenue.deferred_revenue_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    opening numeric,
    billed numeric,
    recognised numeric,
    refunded numeric,
    closing numeric
);

-- From what was billed to the invoices, and from those to the cash: docs/revenue.md says what each
-- line is. The lines after a sum add up to the next one.
CREATE TABLE revenue.reconciliation (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    line text NOT NULL CHECK (line IN (
        'billed', 'imported', 'waiting', 'invoices_remainder', 'invoices_net', 'tax',
        'invoices_total', 'paid_with_credit', 'not_paid', 'taken_back', 'overpaid', 'unassigned',
        'dated_later', 'credit_notes_paid', 'cash_remainder', 'cash', 'cash_received',
        'cash_returned')),
    amount numeric NOT NULL,
    PRIMARY KEY (month, currency, line)
);
CREATE UNLOGGED TABLE revenue.reconciliation_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    line text,
    amount numeric
);

-- The terms that ended in the range, and what is owed at its end, counted term by term.
CREATE UNLOGGED TABLE revenue.retention_control_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    ended bigint,
    deferred numeric
);

CREATE VIEW revenue.staged_deferred_revenue AS
    SELECT * FROM revenue.deferred_revenue_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_reconciliation AS
    SELECT * FROM revenue.reconciliation_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_retention_control AS
    SELECT * FROM revenue.retention_control_staging WHERE run_id = prepaid.run_id();

-- The invoice that a payment is for: of its records the one that paid, else the earliest that names or
-- was assigned to one in that currency.
CREATE FUNCTION revenue.invoice_paid_by(provider text, provider_ref text, currency text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT i.invoice_id
    FROM prepaid.transactions s
    CROSS JOIN LATERAL (
        SELECT i.invoice_id, i.currency FROM prepaid.invoices i
        WHERE i.invoice_id = coalesce(s.invoice_id, (
            SELECT n.invoice_id FROM prepaid.invoices n WHERE n.invoice_number = s.invoice_number))
        OFFSET 0) i
    WHERE hashtextextended(s.provider_ref, 0) = hashtextextended(invoice_paid_by.provider_ref, 0)
      AND s.provider = invoice_paid_by.provider AND s.provider_ref = invoice_paid_by.provider_ref
      AND s.status = 'Success'
      AND s.currency = invoice_paid_by.currency AND i.currency = invoice_paid_by.currency
    ORDER BY (s.outcome = 'matched') DESC NULLS LAST, coalesce(s.occurred_at, s.received_at),
             s.transaction_id
    LIMIT 1
$$;

-- The part of an amount that falls on so many of its days, in whole minor units, rounded half up: div() is
-- exact, where a quotient that was rounded before could be half a unit on the wrong side.
CREATE FUNCTION revenue.days_part(minor_units numeric, days integer, of_days integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN div(2 * minor_units * days + of_days, 2 * of_days);

-- Whole months from the month of one day to that of another.
CREATE FUNCTION revenue.months_between(earlier date, later date) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (12 * (date_part('year', later) - date_part('year', earlier))
        + date_part('month', later) - date_part('month', earlier))::integer;

-- How terms are served that were cut, or credited, seen on as_of: few of all. credit is the net of the
-- credit note. lost is the unused part of a term that was cut while its payment was taken back: nobody
-- pays and nobody credits it, so that it leaves with the invoice, when that becomes void.
CREATE FUNCTION revenue.credited_terms(plans bigint[], as_of date)
RETURNS TABLE (service_plan_id bigint, currency text, amount numeric, start_date date,
               full_end_date date, is_cut boolean, last_day date, billed_on date, credit numeric,
               credited_on date, lost numeric, lost_on date)
LANGUAGE sql STABLE AS $$
    SELECT p.service_plan_id, p.currency, p.net_amount, p.start_date,
           coalesce(p.full_end_date, p.end_date), p.full_end_date IS NOT NULL,
           -- The last day that is served; of a term without a day, its first one.
           greatest(p.end_date - 1, p.start_date), p.activated_on, coalesce(n.net, 0),
           CASE WHEN n.issued_on <= credited_terms.as_of THEN greatest(n.issued_on, p.activated_on) END,
           CASE WHEN unpaid.is_so THEN p.net_amount - revenue.days_part(
                    p.net_amount * 10::numeric ^ c.exponent, p.end_date - p.start_date,
                    p.full_end_date - p.start_date) * 10::numeric ^ -c.exponent
                ELSE 0 END,
           CASE WHEN unpaid.is_so AND void.on_day <= credited_terms.as_of
                THEN greatest(void.on_day, p.activated_on) END
    FROM prepaid.service_plans p
    JOIN prepaid.currencies c ON c.currency = p.currency
    LEFT JOIN prepaid.credit_notes n ON n.service_plan_id = p.service_plan_id
    LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
    CROSS JOIN LATERAL (
        SELECT p.full_end_date IS NOT NULL AND n.credit_note_id IS NULL AND p.origin = 'pipeline'
            AND i.status IS DISTINCT FROM 'Paid' AS is_so) unpaid
    LEFT JOIN LATERAL (
        SELECT coalesce(a.as_of, prepaid.business_date(a.at)) AS on_day
        FROM prepaid.audit_log a
        WHERE unpaid.is_so AND i.invoice_id IS NULL
          AND a.service_plan_id = p.service_plan_id AND a.event = 'invoice_void'
        ORDER BY a.audit_id DESC LIMIT 1) void ON true
    WHERE p.service_plan_id = ANY (plans) AND p.activated_on <= credited_terms.as_of
$$;

-- What is owed at the end of a day, term by term: the plans behind the closing balance. Seen on as_of,
-- the same day or a later one.
CREATE FUNCTION revenue.terms_owed(on_day date, as_of date)
RETURNS TABLE (service_plan_id bigint, currency text, amount numeric, recognised numeric,
               refunded numeric, owed numeric)
LANGUAGE sql STABLE AS $$
    WITH terms AS (
        SELECT p.service_plan_id, p.currency, p.net_amount AS amount, p.start_date,
               p.end_date AS full_end_date, false AS is_cut, p.end_date - 1 AS last_day,
               0 AS credit, NULL::date AS credited_on, 0 AS lost, NULL::date AS lost_on
        FROM prepaid.service_plans p
        WHERE p.activated_on <= terms_owed.on_day AND p.end_date - 1 > terms_owed.on_day
          AND p.full_end_date IS NULL
          AND p.service_plan_id NOT IN (SELECT n.service_plan_id FROM prepaid.credit_notes n)
        UNION ALL
        SELECT t.service_plan_id, t.currency, t.amount, t.start_date, t.full_end_date, t.is_cut,
               t.last_day, t.credit, t.credited_on, t.lost, t.lost_on
        FROM revenue.credited_terms(ARRAY(
            SELECT p.service_plan_id FROM prepaid.service_plans p WHERE p.full_end_date IS NOT NULL
            UNION SELECT n.service_plan_id FROM prepaid.credit_notes n), terms_owed.as_of) t
        WHERE t.billed_on <= terms_owed.on_day
    )
    SELECT t.service_plan_id, t.currency, t.amount, r.recognised, r.refunded,
           t.amount - r.recognised - r.refunded
    FROM terms t
    JOIN prepaid.currencies c ON c.currency = t.currency
    CROSS JOIN LATERAL (
        SELECT CASE WHEN t.credited_on <= terms_owed.on_day THEN t.credit ELSE 0 END AS credit,
               CASE WHEN t.lost_on <= terms_owed.on_day THEN t.lost ELSE 0 END AS lost) so_far
    CROSS JOIN LATERAL (
        SELECT so_far.credit + so_far.lost AS refunded,
               CASE WHEN t.last_day <= terms_owed.on_day
                    THEN t.amount - t.lost - CASE WHEN t.is_cut THEN t.credit ELSE so_far.credit END
                    ELSE least(t.amount - so_far.credit, served.amount) END AS recognised
        FROM (
            SELECT coalesce(sum(revenue.days_part(
                       t.amount * 10::numeric ^ c.exponent,
                       least(m.start + interval '1 month', terms_owed.on_day + 1)::date
                           - greatest(m.start::date, t.start_date),
                       t.full_end_date - t.start_date)), 0) * 10::numeric ^ -c.exponent AS amount
            FROM generate_series(date_trunc('month', t.start_date::timestamp),
                                 terms_owed.on_day::timestamp, interval '1 month') m (start)
            WHERE t.start_date <= terms_owed.on_day
        ) served
    ) r
$$;

-- 83_reports.sql

-- The reports that are made from the figures, version by version, and the rates they convert with.

-- A month's report: version 0 while the month is preliminary (it is replaced), then 1, and one
-- more whenever later truth differs. A published version never changes.
CREATE TABLE revenue.report_versions (
    month date NOT NULL REFERENCES revenue.months,
    version integer NOT NULL CHECK (version >= 0),
    cut_off date NOT NULL,
    note text NOT NULL,
    run_id text NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Null in versions of an older release. document is what the report shows of the month as a whole:
    -- the course of 13 months, how the process ran, the checks, what changed since the last version.
    fingerprint text,
    computed_at timestamptz,
    document jsonb,
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
    changes bigint NOT NULL DEFAULT 0 CHECK (changes >= 0),
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
    figures jsonb,
    changes bigint
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

CREATE VIEW revenue.staged_monthly_report AS
    SELECT * FROM revenue.monthly_report_staging WHERE run_id = prepaid.run_id();

-- What one unit of a currency is worth in the reporting currency at the end of a month. Imported; the
-- report converts with these and makes nothing up where one is missing.
CREATE TABLE revenue.exchange_rates (
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    currency text NOT NULL REFERENCES prepaid.currencies,
    reporting_currency text NOT NULL REFERENCES prepaid.currencies,
    rate numeric NOT NULL CHECK (rate > 0 AND rate < 'Infinity'),
    PRIMARY KEY (month, currency, reporting_currency),
    CHECK (currency <> reporting_currency)
);
CREATE TRIGGER audit_master_data AFTER UPDATE ON revenue.exchange_rates
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('exchange_rate', 'no single key', 'values',
        'month,currency,reporting_currency');
CREATE TRIGGER audit_added_master_data AFTER INSERT ON revenue.exchange_rates
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_added_master_data('exchange_rate', 'no single key');

-- 84_drill_down.sql

-- The service plans behind a published figure: their amounts add up to it, exactly. They act with the
-- owner's rights, for people who read the figures and not the tables of the process; they show
-- references and amounts, and no name or address.

-- As of which day a month's figures were computed, and on which day it was measured.
CREATE FUNCTION revenue.measured(for_month date, OUT month date, OUT as_of date, OUT day date)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    month := date_trunc('month', for_month::timestamp)::date;
    SELECT m.as_of INTO as_of FROM revenue.months m WHERE m.month = measured.month;
    IF as_of IS NULL THEN
        RAISE EXCEPTION 'there are no figures for %: run prepaid backfill % %',
            to_char(month, 'YYYY-MM'), to_char(month, 'YYYY-MM'), to_char(month, 'YYYY-MM');
    END IF;
    day := least(as_of, (month + interval '1 month')::date - 1);
END $$;

-- The terms that were active on the day: of revenue.mrr and revenue.mrr_by_country.
CREATE FUNCTION revenue.plans_behind_mrr(for_month date)
RETURNS TABLE (service_plan_id bigint, customer_ref text, subscription_ref text, plan_code text,
               country text, kind text, start_date date, end_date date, currency text, amount numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT p.service_plan_id, c.customer_ref, s.subscription_ref, l.plan_code, coalesce(p.country, ''),
           p.kind, p.start_date, p.end_date, p.currency, p.monthly_amount
    FROM revenue.measured(for_month) m
    JOIN service_plans p ON p.activated_on <= m.as_of AND p.start_date <= m.day AND p.end_date > m.day
    JOIN subscriptions s USING (subscription_id)
    JOIN plans l ON l.plan_id = p.plan_id
    JOIN customers c ON c.customer_id = p.customer_id
$$;

-- The terms that began in the month: of revenue.plan_activations and revenue.activations_by_country.
CREATE FUNCTION revenue.plans_behind_activations(for_month date)
RETURNS TABLE (service_plan_id bigint, customer_ref text, subscription_ref text, plan_code text,
               country text, kind text, began_on date, start_date date, end_date date, currency text,
               amount numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT p.service_plan_id, c.customer_ref, s.subscription_ref, l.plan_code, coalesce(p.country, ''),
           p.kind, greatest(p.start_date, p.activated_on), p.start_date, p.end_date, p.currency,
           p.net_amount
    FROM revenue.measured(for_month) m
    JOIN service_plans p ON p.activated_on <= m.as_of
        AND (p.start_date >= m.month OR p.activated_on >= m.month)
        AND p.start_date < m.month + interval '1 month'
        AND p.activated_on < m.month + interval '1 month'
        -- One that was cancelled before its start, although paid in advance, never began.
        AND (p.end_date > p.start_date OR p.activated_on >= p.start_date)
    JOIN subscriptions s USING (subscription_id)
    JOIN plans l ON l.plan_id = p.plan_id
    JOIN customers c ON c.customer_id = p.customer_id
$$;

-- What each term gave to, or took from, the revenue of a customer whose revenue has changed since the
-- end of the month before: of revenue.mrr_movements.
CREATE FUNCTION revenue.plans_behind_movements(for_month date)
RETURNS TABLE (movement text, service_plan_id bigint, customer_ref text, subscription_ref text,
               plan_code text, country text, kind text, start_date date, end_date date, currency text,
               amount numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    WITH terms AS (
        SELECT p.*, p.start_date < m.month AND p.end_date >= m.month AS was_active,
               p.start_date <= m.day AND p.end_date > m.day AS is_active,
               -- Active at the end of the month it started in, or of any month before this one.
               p.monthly_amount > 0 AND p.start_date < m.month
                   AND p.end_date >= date_trunc('month', p.start_date::timestamp) + interval '1 month'
                   AS had_revenue
        FROM revenue.measured(for_month) m
        JOIN service_plans p ON p.activated_on <= m.as_of AND p.start_date <= m.day
    ),
    customers_moved AS (
        SELECT t.customer_id, t.currency, CASE
                   WHEN sum(t.monthly_amount) FILTER (WHERE t.was_active) > 0 THEN CASE
                       WHEN coalesce(sum(t.monthly_amount) FILTER (WHERE t.is_active), 0) = 0 THEN 'churn'
                       WHEN moved.amount > 0 THEN 'expansion' ELSE 'contraction' END
                   WHEN bool_or(t.had_revenue) THEN 'reactivation' ELSE 'new' END AS movement
        FROM (
            SELECT customer_id, currency,
                   sum(CASE WHEN is_active THEN monthly_amount ELSE -monthly_amount END) AS amount
            FROM terms WHERE was_active <> is_active
            GROUP BY customer_id, currency
        ) moved
        JOIN terms t USING (customer_id, currency)
        WHERE moved.amount <> 0
        GROUP BY t.customer_id, t.currency, moved.amount
    )
    SELECT v.movement, t.service_plan_id, c.customer_ref, s.subscription_ref, l.plan_code,
           coalesce(t.country, ''), t.kind, t.start_date, t.end_date, t.currency,
           CASE WHEN t.is_active THEN t.monthly_amount ELSE -t.monthly_amount END
    FROM customers_moved v
    JOIN terms t USING (customer_id, currency)
    JOIN subscriptions s USING (subscription_id)
    JOIN plans l ON l.plan_id = t.plan_id
    JOIN customers c ON c.customer_id = t.customer_id
    WHERE t.was_active <> t.is_active
$$;

-- The service plans that were credited: of revenue.credit_notes_issued.
CREATE FUNCTION revenue.plans_behind_credit_notes(for_month date)
RETURNS TABLE (service_plan_id bigint, credit_note_number text, issued_on date, customer_ref text,
               subscription_ref text, plan_code text, country text, currency text, net numeric,
               tax numeric, amount numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT p.service_plan_id, n.credit_note_number, n.issued_on, c.customer_ref, s.subscription_ref,
           l.plan_code, coalesce(p.country, ''), n.currency, n.net, n.tax, n.total
    FROM revenue.measured(for_month) m
    JOIN credit_notes n ON n.issued_on >= m.month AND n.issued_on < m.month + interval '1 month'
        AND n.issued_on <= m.as_of
    JOIN service_plans p USING (service_plan_id)
    JOIN subscriptions s USING (subscription_id)
    JOIN plans l ON l.plan_id = p.plan_id
    JOIN customers c ON c.customer_id = p.customer_id
$$;

-- 90_erasure.sql

-- A customer's personal data is erased on request: names, addresses and what people wrote about them.
-- Amounts, dates, the country that the tax is of and the audit log stay, as the law asks of invoices.

CREATE TABLE prepaid.erasures (
    customer_id bigint PRIMARY KEY REFERENCES prepaid.customers,
    reason text NOT NULL CHECK (reason ~ '\S'),
    erased_by text NOT NULL,
    erased_on date NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER erasures_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.erasures
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

-- The payment records that are about a customer: of their invoices, or under their reference.
CREATE FUNCTION prepaid.records_of(customer bigint) RETURNS TABLE (transaction_id bigint)
LANGUAGE sql STABLE AS $$
    SELECT t.transaction_id FROM prepaid.invoices i
    JOIN prepaid.transactions t ON t.invoice_id = i.invoice_id WHERE i.customer_id = customer
    UNION
    SELECT t.transaction_id FROM prepaid.invoices i
    JOIN prepaid.transactions t ON t.invoice_number = i.invoice_number WHERE i.customer_id = customer
    UNION
    SELECT t.transaction_id FROM prepaid.customers c
    JOIN prepaid.transactions t ON t.customer_ref = c.customer_ref WHERE c.customer_id = customer
$$;

-- Why a customer cannot be erased yet; null: nothing is in the way.
CREATE FUNCTION prepaid.erasure_refusal(customer bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT reason FROM (
        SELECT 1 AS place, format('was already erased on %s by %s', e.erased_on, e.erased_by) AS reason
        FROM prepaid.erasures e WHERE e.customer_id = customer
        UNION ALL
        SELECT 2, format('service plan %s is %s: cancel it, or wait until it has ended',
                         p.service_plan_id, p.status)
        FROM prepaid.service_plans p
        WHERE p.customer_id = customer AND p.status IN ('Pending', 'Processing', 'Active')
        UNION ALL
        SELECT 3, format('subscription %s continues: cancel it first', s.subscription_ref)
        FROM prepaid.subscriptions s
        WHERE s.customer_id = customer AND (s.cancelled_on IS NULL OR s.cancelled_on > prepaid.today())
          AND (s.auto_renew OR NOT EXISTS (SELECT FROM prepaid.service_plans p
                                           WHERE p.subscription_id = s.subscription_id))
        UNION ALL
        SELECT 4, format('invoice %s is open: it has to be paid or voided', i.invoice_number)
        FROM prepaid.invoices i WHERE i.customer_id = customer AND i.status = 'Open'
        UNION ALL
        SELECT 5, format('task %s (%s) is open: decide it first', k.task_id, k.kind)
        FROM prepaid.tasks k
        WHERE k.status = 'Open' AND (
            k.service_plan_id IN (SELECT service_plan_id FROM prepaid.service_plans
                                  WHERE customer_id = customer)
            OR k.invoice_id IN (SELECT invoice_id FROM prepaid.invoices WHERE customer_id = customer)
            OR k.transaction_id IN (SELECT transaction_id FROM prepaid.records_of(customer)))
        UNION ALL
        SELECT 6, format('service plan %s is held (%s): release it first', h.service_plan_id, h.reason_code)
        FROM prepaid.holds h JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE p.customer_id = customer AND h.released_at IS NULL
        UNION ALL
        SELECT 7, format('email %s is %s: it has to arrive first', m.email_id, m.status)
        FROM prepaid.emails m JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE p.customer_id = customer AND m.status IN ('pending', 'sending', 'unknown')
        UNION ALL
        SELECT 8, format('payment record %s is not judged yet', t.transaction_id)
        FROM prepaid.transactions t
        WHERE t.transaction_id IN (SELECT transaction_id FROM prepaid.records_of(customer))
          AND (t.outcome IS NULL OR t.outcome = 'waiting')
    ) refusals ORDER BY place, reason LIMIT 1
$$;

-- Of rows that are only ever added people's words can be erased, and nothing else.
CREATE FUNCTION prepaid.only_erase_notes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- (A generated column is not computed yet in a BEFORE trigger.)
    IF NEW.note = '(erased)' AND OLD.note IS NOT NULL
       AND to_jsonb(NEW) - ARRAY['note', 'refund'] = to_jsonb(OLD) - ARRAY['note', 'refund'] THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
END $$;
CREATE TRIGGER sign_offs_notes BEFORE UPDATE ON prepaid.sign_offs
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER sign_offs_notes;
CREATE TRIGGER task_assignments_notes BEFORE UPDATE ON prepaid.task_assignments
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();
CREATE TRIGGER requests_notes BEFORE UPDATE ON prepaid.requests
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();
CREATE TRIGGER credit_notes_notes BEFORE UPDATE ON prepaid.credit_notes
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();

-- Erases a customer for the acting person; all or nothing. Returns the Message-IDs of the mails whose
-- bytes are gone: where they were written as files, those are the caller's to delete.
CREATE FUNCTION prepaid.erase_customer(ref text, why text)
RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('erase a customer', why);
    customer bigint;
    refusal text;
    plan_ids bigint[];
    record_ids bigint[];
    task_ids bigint[];
    message_ids text[];
BEGIN
    SELECT c.customer_id INTO customer FROM customers c WHERE c.customer_ref = ref FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no customer %', ref;
    END IF;
    -- No term is opened meanwhile.
    PERFORM FROM subscriptions s WHERE s.customer_id = customer ORDER BY s.subscription_id FOR UPDATE;
    refusal := erasure_refusal(customer);
    IF refusal IS NOT NULL THEN
        RAISE EXCEPTION 'customer % cannot be erased: %', ref, refusal;
    END IF;
    plan_ids := ARRAY(SELECT p.service_plan_id FROM service_plans p WHERE p.customer_id = customer);
    record_ids := ARRAY(SELECT r.transaction_id FROM records_of(customer) r);
    task_ids := ARRAY(SELECT k.task_id FROM tasks k WHERE k.service_plan_id = ANY (plan_ids)
                      OR k.transaction_id = ANY (record_ids));
    INSERT INTO erasures (customer_id, reason, erased_by, erased_on)
    VALUES (customer, why, person, prepaid.today());

    UPDATE customers c SET name = 'erased customer ' || customer, email = NULL
    WHERE c.customer_id = customer;
    UPDATE service_plans p SET email = NULL,
        customer_name = CASE WHEN p.customer_name IS NOT NULL THEN 'erased customer ' || customer END
    WHERE p.service_plan_id = ANY (plan_ids);
    WITH erased AS (
        UPDATE emails m SET recipient = 'erased@invalid',
            content = CASE WHEN m.content IS NOT NULL THEN ''::bytea END,
            -- One that failed is not sent again.
            status = CASE m.status WHEN 'failed' THEN 'dropped' ELSE m.status END,
            last_error = CASE m.status WHEN 'failed' THEN 'the customer was erased' END
        WHERE m.service_plan_id = ANY (plan_ids)
        RETURNING m.message_id
    )
    SELECT coalesce(array_agg(e.message_id) FILTER (WHERE e.message_id IS NOT NULL), '{}')
    INTO message_ids FROM erased e;
    -- Null and not a word: a later record of the same payment is judged with these.
    UPDATE transactions t
    SET customer_ref = CASE WHEN t.customer_ref = ref THEN ref END,
        invoice_number = CASE WHEN EXISTS (SELECT FROM invoices i WHERE i.invoice_number = t.invoice_number)
                              THEN t.invoice_number END,
        assigned_note = CASE WHEN t.assigned_note IS NOT NULL THEN '(erased)' END,
        outcome_reason = CASE WHEN t.outcome_reason IS NOT NULL THEN '(erased)' END
    WHERE t.transaction_id = ANY (record_ids);
    UPDATE holds h SET text = '(erased)', note = CASE WHEN h.note IS NOT NULL THEN '(erased)' END
    WHERE h.service_plan_id = ANY (plan_ids);
    UPDATE tasks k SET note = '(erased)' WHERE k.task_id = ANY (task_ids) AND k.note IS NOT NULL;
    UPDATE sign_offs s SET note = '(erased)' WHERE s.task_id = ANY (task_ids) AND s.note IS NOT NULL;
    UPDATE task_assignments a SET note = '(erased)'
    WHERE a.task_id = ANY (task_ids) AND a.note IS NOT NULL;
    UPDATE requests q SET note = '(erased)'
    WHERE q.subscription_id IN (SELECT s.subscription_id FROM subscriptions s
                                WHERE s.customer_id = customer);
    UPDATE credit_notes n SET note = '(erased)' WHERE n.customer_id = customer AND n.note IS NOT NULL;

    INSERT INTO audit_log (event, entity, entity_id, after, actor, run_id, as_of)
    VALUES ('customer_erased', 'customer', customer, 'erased', person, prepaid.run_id(), prepaid.as_of());
    RETURN message_ids;
END $$;

-- 91_rights.sql

-- Teams are database roles without login; each person is a role of their own in one of them.
-- Roles belong to the server, not to the database: another database may have made them already.
-- What each may do is written down in docs/rights.md, and a test compares the two.

DO $$
DECLARE
    team text;
BEGIN
    FOR team IN SELECT t.team FROM prepaid.teams t UNION ALL SELECT 'desk' LOOP
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

REVOKE EXECUTE ON FUNCTION prepaid.decide_tasks FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION prepaid.release_holds FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION prepaid.assign_record FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION prepaid.resend_emails, prepaid.settle_emails, prepaid.correct_email_address
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.decide_tasks TO finance, customer_success;
GRANT EXECUTE ON FUNCTION prepaid.assign_record TO finance;
GRANT EXECUTE ON FUNCTION prepaid.release_holds TO finance, customer_success, engineering;
GRANT EXECUTE ON FUNCTION prepaid.resend_emails, prepaid.settle_emails TO customer_success, engineering;
GRANT EXECUTE ON FUNCTION prepaid.correct_email_address TO customer_success;
GRANT SELECT ON prepaid.undelivered_mails TO customer_success;

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
-- What people decided at the desk is sealed at once; sealing changes nothing and tells nothing.
REVOKE EXECUTE ON FUNCTION prepaid.seal_audit_log FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.seal_audit_log TO desk;
GRANT EXECUTE ON FUNCTION prepaid.reassign_tasks TO finance, customer_success;
REVOKE EXECUTE ON FUNCTION prepaid.decide_as_seen FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.decide_as_seen TO finance, customer_success;
REVOKE EXECUTE ON FUNCTION prepaid.set_customer_email FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.set_customer_email TO customer_success;
GRANT SELECT ON prepaid.quality_features TO customer_success;
GRANT SELECT ON prepaid.colleagues TO finance, customer_success;

REVOKE EXECUTE ON FUNCTION revenue.plans_behind_mrr, revenue.plans_behind_activations,
    revenue.plans_behind_movements, revenue.plans_behind_credit_notes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION revenue.plans_behind_mrr, revenue.plans_behind_activations,
    revenue.plans_behind_movements, revenue.plans_behind_credit_notes TO finance, leadership, engineering;

-- The owner does not need these rights, and would have to give them back to itself to change what was
-- signed or logged. (Triggers refuse it even then.)
REVOKE UPDATE, DELETE, TRUNCATE ON prepaid.sign_offs, prepaid.audit_log, prepaid.audit_seals
    FROM CURRENT_USER;
-- But people's words can be erased from a sign-off, and nothing else of it (a trigger sees to that).
GRANT UPDATE (note) ON prepaid.sign_offs TO CURRENT_USER;
REVOKE EXECUTE ON FUNCTION prepaid.erase_customer FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.erase_customer TO customer_success, engineering;
GRANT SELECT ON ALL TABLES IN SCHEMA revenue TO finance, leadership, engineering;
-- The monthly reports are for everybody; the figures behind them are not.
GRANT USAGE ON SCHEMA revenue TO customer_success;
GRANT SELECT ON revenue.report_versions TO customer_success;
