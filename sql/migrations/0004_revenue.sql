-- Revenue by country, retention, deferred revenue, reporting currency; what the report shows.

-- The report: what it says of the month as a whole, and what it was made from.

ALTER TABLE prepaid.service_plans ADD COLUMN created_at timestamptz;
ALTER TABLE prepaid.service_plans ALTER COLUMN created_at SET DEFAULT clock_timestamp();
CREATE INDEX audit_log_of_holds ON prepaid.audit_log (as_of, at) WHERE event = 'hold_placed';
CREATE INDEX tasks_by_day ON prepaid.tasks USING brin (opened_on) WITH (autosummarize = on);

ALTER TABLE prepaid.emails DROP CONSTRAINT emails_check2;
ALTER TABLE prepaid.emails ADD CONSTRAINT emails_to_our_people_are_about_no_plan CHECK (
    (service_plan_id IS NULL) = (template IN ('overdue_tasks', 'monthly_report')));

ALTER TABLE revenue.months ADD COLUMN fingerprint text, ADD COLUMN computed_at timestamptz;
ALTER TABLE revenue.months_staging ADD COLUMN fingerprint text;
CREATE OR REPLACE VIEW revenue.staged_months AS
    SELECT * FROM revenue.months_staging WHERE run_id = prepaid.run_id();
ALTER TABLE revenue.report_versions ADD COLUMN fingerprint text, ADD COLUMN computed_at timestamptz,
    ADD COLUMN document jsonb;

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
GRANT SELECT ON revenue.check_results TO finance, leadership, engineering;

-- Figures by country.

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

CREATE VIEW revenue.staged_mrr_by_country AS
    SELECT * FROM revenue.mrr_by_country_staging WHERE run_id = prepaid.run_id();

CREATE VIEW revenue.staged_activations_by_country AS
    SELECT * FROM revenue.activations_by_country_staging WHERE run_id = prepaid.run_id();

GRANT SELECT ON ALL TABLES IN SCHEMA revenue TO finance, leadership, engineering;
