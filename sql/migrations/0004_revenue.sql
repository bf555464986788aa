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
