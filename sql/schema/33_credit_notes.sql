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
