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
