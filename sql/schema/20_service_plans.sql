-- One row of service_plans is one prepaid term of one subscription: it is the process instance.
-- Here: how its term is counted, the table, and the audit entries of its changes.

-- The end of the term that starts on start_date, for a subscription anchored on anchor_date:
-- counted from the anchor, never from the start, so 31 Jan -> 28 Feb -> 31 Mar.
CREATE FUNCTION prepaid.term_end(
    anchor_date date, start_date date, term_months integer, term_days integer
) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN term_days > 0 THEN start_date + term_days
    ELSE (anchor_date + make_interval(months => term_months
            + 12 * (extract(year FROM start_date) - extract(year FROM anchor_date))::integer
            + (extract(month FROM start_date) - extract(month FROM anchor_date))::integer))::date
    END;

-- The anchor if start_date is one of its month boundaries, else start_date as a new anchor:
-- a term that starts off the grid would get an end that is too early or too late.
CREATE FUNCTION prepaid.anchor_for(anchor_date date, start_date date) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN (anchor_date + make_interval(months =>
            12 * (extract(year FROM start_date) - extract(year FROM anchor_date))::integer
            + (extract(month FROM start_date) - extract(month FROM anchor_date))::integer))::date
        = start_date THEN anchor_date ELSE start_date END;

-- Lead and grace of a term in days are at most half the term: a weekly plan cannot have a week of grace.
CREATE FUNCTION prepaid.days_within_term(days integer, term_days integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN term_days > 0 THEN least(days, term_days / 2) ELSE days END;

CREATE EXTENSION IF NOT EXISTS btree_gist;

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
    -- recurring_amount: without the fees, and reduced only by permanent discounts. Both are
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

CREATE FUNCTION prepaid.audit_opened_plans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, after, detail, actor, run_id, as_of)
    SELECT 'service_plan_opened', service_plan_id, 'service_plan', service_plan_id, status, kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows WHERE origin = 'pipeline';
    RETURN NULL;
END $$;
CREATE TRIGGER audit_opened_plans AFTER INSERT ON prepaid.service_plans
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_opened_plans();

CREATE FUNCTION prepaid.audit_plan_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, actor, run_id, as_of)
    SELECT 'service_plan_' || lower(n.status), n.service_plan_id, 'service_plan',
           n.service_plan_id, o.status, n.status, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (service_plan_id) WHERE n.status <> o.status;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_plan_status AFTER UPDATE ON prepaid.service_plans
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_plan_status();

CREATE FUNCTION prepaid.audit_cut_term() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, actor, run_id, as_of)
    VALUES ('term_cut', NEW.service_plan_id, 'term', NEW.service_plan_id, OLD.end_date::text,
            NEW.end_date::text, prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    RETURN NULL;
END $$;
CREATE TRIGGER audit_cut_term AFTER UPDATE ON prepaid.service_plans
    FOR EACH ROW WHEN (OLD.full_end_date IS DISTINCT FROM NEW.full_end_date)
    EXECUTE FUNCTION prepaid.audit_cut_term();
