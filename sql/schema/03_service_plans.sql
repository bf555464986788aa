-- One row of service_plans is one prepaid term of one subscription: it is the process instance.

CREATE EXTENSION IF NOT EXISTS btree_gist;

-- A batch is a lease on up to 10,000 plans. The lease is renewed here by every step, one row
-- instead of ten thousand; a plan whose batch's lease has run out may be claimed by another batch.
CREATE TABLE prepaid.batches (
    batch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL CHECK (queue IN ('open_renewals', 'settle_renewals')),
    as_of date NOT NULL,
    run_id text,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_until timestamptz NOT NULL,
    finished_at timestamptz
);

CREATE TABLE prepaid.service_plans (
    service_plan_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    customer_id bigint NOT NULL REFERENCES prepaid.customers,
    plan_id bigint NOT NULL REFERENCES prepaid.plans,
    previous_plan_id bigint REFERENCES prepaid.service_plans,
    origin text NOT NULL CHECK (origin IN ('imported', 'pipeline')),
    kind text NOT NULL CHECK (kind IN ('new', 'renewal', 'reactivation', 'change')),
    status text NOT NULL CHECK (status IN ('Pending', 'Processing', 'Active', 'Expired', 'Cancelled')),

    -- The term is [start_date, end_date). Planned when the plan is opened, fixed when it is activated.
    -- planned_start never changes: by it an order that is delivered again is recognised.
    start_date date NOT NULL,
    end_date date NOT NULL,
    planned_start date NOT NULL,
    anchor_date date NOT NULL,
    term_months integer NOT NULL,
    term_days integer NOT NULL,
    -- The business date of step 0; null for what was imported, history and orders.
    opened_on date,

    -- What step 1 took from the customer, the price list and the subscription; the invoice and the
    -- confirmation are made from it and do not change with them. price is that of one unit, and of
    -- the whole term for what was imported (quantity 1); net unless price_includes_tax. addons is an
    -- array of {"addon_code", "name", "price", "includes_tax", "quantity", "recurring", "tax_class"},
    -- ordered by code; discounts (null: none) one of {"discount_code", "name", "percent", "amount",
    -- "for_ever"}, those that apply to this term.
    currency text NOT NULL REFERENCES prepaid.currencies,
    price numeric CHECK (price >= 0 AND price < 'Infinity'),
    addons jsonb,
    customer_name text,
    email text,
    country text,
    tax_exempt boolean,
    plan_name text,
    tax_class text,
    retrieved_at timestamptz,

    -- net_amount: the whole term without tax, after discounts, one-time fees included.
    -- recurring_amount: without the fees, and reduced by discounts only that are for ever. Both are
    -- known once the tax is (step 5), and at once for imported terms.
    -- monthly_amount: the term's part of monthly recurring revenue, unrounded.
    net_amount numeric CHECK (net_amount >= 0 AND net_amount < 'Infinity'),
    recurring_amount numeric CHECK (recurring_amount >= 0),
    monthly_amount numeric GENERATED ALWAYS AS (
        CASE WHEN term_months > 0 THEN recurring_amount / term_months
        ELSE recurring_amount * 365.25 / 12 / term_days END) STORED,

    invoiced_at timestamptz,
    activated_on date,
    activated_at timestamptz,
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1),
    price_includes_tax boolean NOT NULL DEFAULT false,
    discounts jsonb,
    tax_exempt_reason text,
    -- The end that was paid for, when the term was cut: by a change of plan it ends where the new
    -- term starts, by a cancellation at once on that day. Null for a term that was not cut.
    full_end_date date,
    -- Cancelled for a reason of the subscription's, not of this term: it was leaving, or a change of
    -- plan came instead. If that is taken back, the renewal may be opened again.
    may_reopen boolean NOT NULL DEFAULT false,
    -- When we learnt of the term, by which a later version of a report says why it differs. Null for
    -- terms from before this was noted.
    created_at timestamptz DEFAULT clock_timestamp(),

    -- Cancelled on its very first day, a term is empty: nothing of it was used.
    CHECK (end_date > start_date
        OR end_date = start_date AND status = 'Cancelled' AND full_end_date IS NOT NULL),
    CHECK (full_end_date IS NULL OR full_end_date > end_date AND activated_on IS NOT NULL),
    CHECK ((term_months > 0) <> (term_days > 0)),
    CHECK (status NOT IN ('Active', 'Expired')
        OR (activated_on IS NOT NULL AND net_amount IS NOT NULL AND recurring_amount IS NOT NULL)),
    CHECK (status <> 'Processing' OR invoiced_at IS NULL),

    -- Two terms of one subscription never overlap; one that was cut counts for the days it had. A
    -- plan that waits, or was cancelled before its activation, must not block.
    CONSTRAINT service_plans_terms_do_not_overlap EXCLUDE USING gist (
        subscription_id WITH =, daterange(start_date, end_date) WITH &&)
        WHERE (activated_on IS NOT NULL)
);
CREATE UNIQUE INDEX service_plans_one_live_successor ON prepaid.service_plans (previous_plan_id)
    WHERE status <> 'Cancelled' AND previous_plan_id IS NOT NULL;
CREATE UNIQUE INDEX service_plans_one_live_first_plan ON prepaid.service_plans (subscription_id)
    WHERE status <> 'Cancelled' AND previous_plan_id IS NULL;
CREATE INDEX service_plans_by_subscription ON prepaid.service_plans (subscription_id, start_date);
CREATE INDEX service_plans_to_invoice ON prepaid.service_plans (service_plan_id)
    WHERE invoiced_at IS NULL AND status IN ('Pending', 'Processing');
-- Few plans are changes: the steps that ask for them need not look at each plan of a batch.
CREATE INDEX service_plans_changes ON prepaid.service_plans (service_plan_id) WHERE kind = 'change';
CREATE INDEX service_plans_ending ON prepaid.service_plans (end_date)
    WHERE status IN ('Active', 'Expired');
CREATE INDEX service_plans_to_expire ON prepaid.service_plans (end_date) WHERE status = 'Active';

-- What the pipeline is not done with: each plan from its opening until step 11, and again when its
-- payment is taken back; and which batch has claimed it. A row of its own, because a claim on the plan
-- itself would write all of its columns and indexes anew. No foreign keys, which would cost a look-up
-- per plan and claim: rows come from a trigger on service_plans, and a batch is never deleted. No index
-- on the batch: without it a claim stays on its page, for which the pages are kept half empty.
CREATE TABLE prepaid.unsettled_plans (
    service_plan_id bigint PRIMARY KEY,
    batch_id bigint
) WITH (fillfactor = 50);

CREATE FUNCTION prepaid.note_unsettled_plans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.unsettled_plans (service_plan_id)
    SELECT service_plan_id FROM new_rows WHERE status = 'Pending';
    RETURN NULL;
END $$;
CREATE TRIGGER note_unsettled_plans AFTER INSERT ON prepaid.service_plans
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.note_unsettled_plans();

-- A held plan keeps its status and leaves its batch; when a person releases it, it goes on where it was.
CREATE TABLE prepaid.holds (
    hold_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_plan_id bigint NOT NULL REFERENCES prepaid.service_plans,
    reason_code text NOT NULL,
    text text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    released_by text,
    note text,
    CHECK ((released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX holds_one_live_per_reason ON prepaid.holds (service_plan_id, reason_code)
    WHERE released_at IS NULL;

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
