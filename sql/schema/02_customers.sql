-- Who buys: customers and their subscriptions.

CREATE TABLE prepaid.customers (
    customer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_ref text NOT NULL UNIQUE,
    name text NOT NULL,
    email text,
    country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    currency text NOT NULL REFERENCES prepaid.currencies,
    tax_exempt boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- price is the customer's own net price for one term; null means the price list's.
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
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX subscriptions_by_customer ON prepaid.subscriptions (customer_id);

-- Imported beside a service_plans.csv that has not been taken yet (or was refused): until it is, a
-- subscription without terms is no purchase, it may have been running for years.
CREATE TABLE prepaid.subscriptions_awaiting_history (
    subscription_id bigint PRIMARY KEY REFERENCES prepaid.subscriptions
);

CREATE TABLE prepaid.subscription_addons (
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    addon_id bigint NOT NULL REFERENCES prepaid.addons,
    PRIMARY KEY (subscription_id, addon_id)
);
