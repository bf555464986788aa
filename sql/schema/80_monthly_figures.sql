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
