-- Who buys: customers, their subscriptions and the discounts on them.

CREATE TABLE prepaid.customers (
    customer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_ref text NOT NULL UNIQUE,
    name text NOT NULL,
    email text,
    country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    currency text NOT NULL REFERENCES prepaid.currencies,
    tax_exempt boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- What stands on the invoices of an exempt customer, such as "Reverse charge".
    tax_exempt_reason text
);
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.customers
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('customer', 'customer_id', 'names');

-- price is the customer's own net price of one unit for one term; null means the price list's.
CREATE TABLE prepaid.subscriptions (
    subscription_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_ref text NOT NULL UNIQUE,
    customer_id bigint NOT NULL REFERENCES prepaid.customers,
    plan_id bigint NOT NULL REFERENCES prepaid.plans,
    started_on date NOT NULL,
    anchor_date date NOT NULL,
    auto_renew boolean NOT NULL,
    price numeric CHECK (price >= 0 AND price < 'Infinity'),
    cancelled_on date,
    created_at timestamptz NOT NULL DEFAULT now(),
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1)
);
CREATE INDEX subscriptions_by_customer ON prepaid.subscriptions (customer_id);
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.subscriptions
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('subscription', 'subscription_id', 'values');

-- Imported beside a service_plans.csv or a discounts.csv that has not been taken yet (or was refused):
-- until it is, a subscription without terms is no purchase. It may have been running for years, or
-- would be invoiced without its discount.
CREATE TABLE prepaid.subscriptions_awaiting_history (
    subscription_id bigint PRIMARY KEY REFERENCES prepaid.subscriptions
);

CREATE TABLE prepaid.subscription_addons (
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    addon_id bigint NOT NULL REFERENCES prepaid.addons,
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 1),
    PRIMARY KEY (subscription_id, addon_id)
);

-- A discount takes a percentage or an amount (of the customer's currency) off a subscription's plan
-- and recurring add-ons. terms null: permanent; n: the first n terms that start on or after starts_on
-- (null: the subscription's start); 0 ends it.
CREATE TABLE prepaid.discounts (
    discount_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    discount_code text NOT NULL,
    name text NOT NULL,
    percent numeric CHECK (percent > 0 AND percent <= 100),
    amount numeric CHECK (amount > 0 AND amount < 'Infinity'),
    terms integer CHECK (terms >= 0),
    starts_on date,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (subscription_id, discount_code),
    CHECK ((percent IS NULL) <> (amount IS NULL))
);
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.discounts
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('discount', 'discount_id', 'values', 'discount_code');
CREATE TRIGGER audit_added_master_data AFTER INSERT ON prepaid.discounts
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_added_master_data('discount', 'discount_id');
