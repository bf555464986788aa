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

-- From a figure to the service plans behind it.

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
        RAISE EXCEPTION 'there are no figures of %: prepaid backfill % % makes them',
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

REVOKE EXECUTE ON FUNCTION revenue.plans_behind_mrr, revenue.plans_behind_activations,
    revenue.plans_behind_movements, revenue.plans_behind_credit_notes FROM PUBLIC;

GRANT EXECUTE ON FUNCTION revenue.plans_behind_mrr, revenue.plans_behind_activations,
    revenue.plans_behind_movements, revenue.plans_behind_credit_notes TO finance, leadership, engineering;

-- Retention, deferred revenue, reconciliation.

ALTER TABLE prepaid.installation
    ADD COLUMN grace_days integer NOT NULL DEFAULT 7 CHECK (grace_days >= 0);

-- What became of the terms that ended, and of the customers that there were before.

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

-- What became of a term: who followed in time, within its days of grace or later, else who had left, and
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

GRANT SELECT ON revenue.renewal_outcomes, revenue.renewal_outcomes_staging, revenue.retention,
    revenue.retention_staging, revenue.cohorts, revenue.cohorts_staging,
    revenue.staged_renewal_outcomes, revenue.staged_retention, revenue.staged_cohorts,
    revenue.deferred_revenue, revenue.deferred_revenue_staging, revenue.reconciliation,
    revenue.reconciliation_staging, revenue.retention_control_staging,
    revenue.staged_deferred_revenue, revenue.staged_reconciliation, revenue.staged_retention_control
    TO finance, leadership, engineering;
-- End of retention, deferred revenue, reconciliation.
-- The reporting currency.

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
GRANT SELECT ON revenue.exchange_rates TO finance, leadership, engineering;
