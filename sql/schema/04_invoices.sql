-- Invoices with gapless numbers per series and year of issue.

CREATE TABLE prepaid.invoice_series (
    series text NOT NULL,
    year integer NOT NULL,
    last_number integer NOT NULL DEFAULT 0 CHECK (last_number >= 0),
    PRIMARY KEY (series, year)
);

CREATE FUNCTION prepaid.invoice_number(series text, year integer, number bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    series || '-' || year || '-' || lpad(number::text, greatest(6, length(number::text)), '0');

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
    -- Step 6 notes the provider's record here; unique, because a record pays one invoice only.
    transaction_id bigint UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (net + tax = total),
    CHECK ((status = 'Paid') = (paid_on IS NOT NULL))
);
CREATE UNIQUE INDEX invoices_one_live_per_plan ON prepaid.invoices (service_plan_id)
    WHERE status <> 'Void';
CREATE INDEX invoices_by_customer ON prepaid.invoices (customer_id);

CREATE TABLE prepaid.invoice_lines (
    invoice_id bigint NOT NULL REFERENCES prepaid.invoices,
    line_number integer NOT NULL,
    description text NOT NULL,
    net numeric NOT NULL CHECK (net >= 0),
    tax_class text NOT NULL,
    tax_rate numeric CHECK (tax_rate >= 0),
    tax numeric NOT NULL CHECK (tax >= 0),
    PRIMARY KEY (invoice_id, line_number)
);
