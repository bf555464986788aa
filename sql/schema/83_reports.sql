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
