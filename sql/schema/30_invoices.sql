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
