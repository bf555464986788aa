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
