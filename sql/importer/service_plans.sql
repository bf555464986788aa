-- service_plans.csv: past and running terms as history, Pending ones as orders that the pipeline
-- takes on. A known term is never changed: what the file has otherwise is only reported.

-- name: incoming
CREATE TEMP TABLE incoming (
    line integer, subscription_ref text, start_date date, end_date date, price numeric, status text
) ON COMMIT DROP;

-- name: copy
COPY incoming (line, subscription_ref, start_date, end_date, price, status) FROM STDIN;

-- name: statistics
ANALYZE incoming (subscription_ref);

-- name: lock
-- Until commit nobody opens or activates a plan: what is checked below stays true.
LOCK TABLE prepaid.service_plans IN SHARE ROW EXCLUSIVE MODE;

-- name: resolved
-- service_plan_id is the known term's, null for a new one; cut_on its end if it was cut here since.
CREATE TEMP TABLE resolved (
    line integer, subscription_id bigint, customer_id bigint, plan_id bigint,
    term_months integer, term_days integer, currency text, exponent smallint,
    start_date date, end_date date, price numeric, status text, service_plan_id bigint, cut_on date
) ON COMMIT DROP;

-- name: resolve
-- A term is known by its start, or by the start that was planned before the pipeline fixed another.
WITH candidates AS (
    SELECT i.line, p.service_plan_id, p.status, 1 AS place,
           CASE WHEN p.full_end_date IS NOT NULL THEN p.end_date END AS cut_on
    FROM incoming i
    JOIN prepaid.subscriptions s USING (subscription_ref)
    JOIN prepaid.service_plans p ON p.subscription_id = s.subscription_id AND p.start_date = i.start_date
    UNION ALL
    SELECT i.line, p.service_plan_id, p.status, 2,
           CASE WHEN p.full_end_date IS NOT NULL THEN p.end_date END
    FROM incoming i
    JOIN prepaid.subscriptions s USING (subscription_ref)
    JOIN prepaid.service_plans p ON p.subscription_id = s.subscription_id
        AND p.planned_start = i.start_date AND p.planned_start <> p.start_date
), known AS (
    SELECT DISTINCT ON (line) line, service_plan_id, cut_on FROM candidates
    ORDER BY line, status = 'Cancelled', place, service_plan_id DESC
)
INSERT INTO resolved
SELECT i.line, s.subscription_id, s.customer_id, s.plan_id, l.term_months, l.term_days,
       c.currency, m.exponent, i.start_date, i.end_date, i.price, i.status, k.service_plan_id, k.cut_on
FROM incoming i
JOIN prepaid.subscriptions s USING (subscription_ref)
JOIN prepaid.customers c USING (customer_id)
JOIN prepaid.currencies m USING (currency)
JOIN prepaid.plans l ON l.plan_id = s.plan_id
LEFT JOIN known k USING (line);

-- name: resolved_statistics
ANALYZE resolved (subscription_id);

-- name: last_known
CREATE TEMP TABLE last_known (
    subscription_id bigint PRIMARY KEY, service_plan_id bigint, start_date date, end_date date,
    status text
) ON COMMIT DROP;

-- name: find_last_known
INSERT INTO last_known
SELECT n.subscription_id, p.service_plan_id, p.start_date, p.end_date, p.status
FROM (SELECT DISTINCT subscription_id FROM resolved WHERE service_plan_id IS NULL) n
CROSS JOIN LATERAL (
    SELECT * FROM prepaid.service_plans p
    WHERE p.subscription_id = n.subscription_id
      AND (p.status <> 'Cancelled' OR p.activated_on IS NOT NULL)
    ORDER BY p.start_date DESC LIMIT 1) p;

-- name: price_days
-- Between two of these days nothing changes that add-ons cost without tax, so that a subscription's
-- add-ons are priced once for all terms that start in between, not once a term.
CREATE TEMP TABLE price_days ON COMMIT DROP AS
SELECT on_day, row_number() OVER (ORDER BY on_day)::integer AS place
FROM (SELECT valid_from FROM prepaid.addon_prices
      UNION
      SELECT valid_from FROM prepaid.tax_rates
      WHERE EXISTS (SELECT FROM prepaid.addon_prices WHERE includes_tax)) days (on_day);

-- name: arriving
-- price_place: the last of these days that is not after the term's start, 0 if there is none.
CREATE TEMP TABLE arriving (
    service_plan_id bigint, line integer, subscription_id bigint, customer_id bigint, plan_id bigint,
    term_months integer, term_days integer, currency text, start_date date, end_date date,
    price numeric, status text, previous_plan_id bigint, kind text, price_place integer
) ON COMMIT DROP;

-- name: chain
-- Ids rise with the start within a subscription, so the highest id before a term that is not
-- cancelled is its predecessor.
WITH numbered AS (
    SELECT nextval('prepaid.service_plans_service_plan_id_seq') AS service_plan_id, n.*
    FROM (SELECT line, subscription_id, customer_id, plan_id, term_months, term_days, currency,
                 exponent, start_date, end_date, price, status
          FROM resolved WHERE service_plan_id IS NULL ORDER BY subscription_id, start_date, line) n
), chained AS (
    SELECT n.*,
           coalesce(max(n.service_plan_id) FILTER (WHERE n.status <> 'Cancelled') OVER earlier,
                    CASE WHEN k.start_date < n.start_date THEN k.service_plan_id END) AS previous_plan_id,
           coalesce(max(n.end_date) FILTER (WHERE n.status <> 'Cancelled') OVER earlier,
                    CASE WHEN k.start_date < n.start_date THEN k.end_date END) AS previous_end
    FROM numbered n LEFT JOIN last_known k USING (subscription_id)
    WINDOW earlier AS (PARTITION BY n.subscription_id ORDER BY n.start_date, n.line
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
INSERT INTO arriving
SELECT service_plan_id, line, subscription_id, customer_id, plan_id, term_months, term_days, currency,
       start_date, end_date, round(price, exponent), status, previous_plan_id,
       CASE WHEN previous_plan_id IS NULL THEN 'new'
            WHEN start_date <= previous_end + prepaid.days_within_term(:grace_days, term_days)
                THEN 'renewal'
            ELSE 'reactivation' END,
       width_bucket(start_date, ARRAY(SELECT on_day FROM price_days ORDER BY place))
FROM chained;

-- name: arriving_statistics
ANALYZE arriving (subscription_id);

-- name: sold
-- The subscription's add-ons and what they cost for its term without tax: with the first term all,
-- later only the recurring ones. The texts name add-ons that have no price, or one that contains a tax
-- whose rate is not known.
CREATE TEMP TABLE sold (
    subscription_id bigint, price_place integer,
    first_addons jsonb, first_net numeric, first_unpriced text, first_untaxed text,
    later_addons jsonb, later_net numeric, later_unpriced text, later_untaxed text,
    PRIMARY KEY (subscription_id, price_place)
) ON COMMIT DROP;

-- name: price_addons
INSERT INTO sold
SELECT n.subscription_id, n.price_place,
       jsonb_agg(o.addon ORDER BY a.addon_code), sum(o.net),
       string_agg(a.addon_code, ';' ORDER BY a.addon_code) FILTER (WHERE ap.price IS NULL),
       string_agg(a.addon_code, ';' ORDER BY a.addon_code)
           FILTER (WHERE ap.price IS NOT NULL AND o.net IS NULL),
       jsonb_agg(o.addon ORDER BY a.addon_code) FILTER (WHERE a.recurring),
       sum(o.net) FILTER (WHERE a.recurring),
       string_agg(a.addon_code, ';' ORDER BY a.addon_code)
           FILTER (WHERE ap.price IS NULL AND a.recurring),
       string_agg(a.addon_code, ';' ORDER BY a.addon_code)
           FILTER (WHERE ap.price IS NOT NULL AND o.net IS NULL AND a.recurring)
FROM (SELECT DISTINCT subscription_id, customer_id, price_place, term_months, term_days, currency,
             exponent
      FROM arriving JOIN prepaid.currencies USING (currency)) n
JOIN prepaid.customers c USING (customer_id)
JOIN prepaid.subscription_addons sa USING (subscription_id)
JOIN prepaid.addons a USING (addon_id)
LEFT JOIN price_days d ON d.place = n.price_place
LEFT JOIN prepaid.addon_price_periods ap ON ap.addon_id = a.addon_id AND ap.currency = n.currency
    AND ap.term_months = n.term_months AND ap.term_days = n.term_days
    AND d.on_day >= ap.valid_from AND d.on_day < ap.valid_until
LEFT JOIN LATERAL (
    SELECT r.rate FROM prepaid.tax_rates r
    WHERE ap.includes_tax AND NOT c.tax_exempt
      AND r.country = c.country AND r.tax_class = a.tax_class AND r.valid_from <= d.on_day
    ORDER BY r.valid_from DESC LIMIT 1) tax ON true
CROSS JOIN LATERAL (SELECT jsonb_build_object('addon_code', a.addon_code, 'name', a.name,
        'price', ap.price, 'includes_tax', ap.includes_tax, 'quantity', sa.quantity,
        'recurring', a.recurring, 'tax_class', a.tax_class) AS addon,
    CASE WHEN ap.includes_tax AND NOT c.tax_exempt
         THEN prepaid.without_tax(ap.price * sa.quantity, tax.rate, n.exponent)
         ELSE ap.price * sa.quantity END AS net) o
GROUP BY n.subscription_id, n.price_place;

-- name: anchors
CREATE TEMP TABLE anchors (
    line integer, subscription_id bigint, anchor_date date, latest boolean
) ON COMMIT DROP;

-- name: find_anchors
-- The anchor of an unbroken run of terms is its first boundary with the highest day of the month:
-- 28 Feb, 30 Mar, 30 Apr hang on 30 Mar. Terms in days hang on the run's first start.
WITH subscriptions AS (
    SELECT DISTINCT subscription_id FROM arriving
), terms AS (
    SELECT line, subscription_id, start_date, end_date, term_days
    FROM arriving WHERE status IN ('Active', 'Expired')
    UNION ALL
    SELECT NULL, subscription_id, p.start_date, p.end_date, p.term_days
    FROM subscriptions JOIN prepaid.service_plans p USING (subscription_id)
    WHERE p.activated_on IS NOT NULL AND p.end_date > p.start_date
), marked AS (
    SELECT *, start_date IS DISTINCT FROM lag(end_date) OVER by_start AS breaks
    FROM terms WINDOW by_start AS (PARTITION BY subscription_id ORDER BY start_date)
), runs AS (
    SELECT *, count(*) FILTER (WHERE breaks) OVER by_start AS run
    FROM marked WINDOW by_start AS (PARTITION BY subscription_id ORDER BY start_date)
), boundaries AS (
    SELECT subscription_id, run, start_date AS boundary, term_days FROM runs
    UNION ALL SELECT subscription_id, run, end_date, term_days FROM runs
), found AS (
    SELECT DISTINCT ON (subscription_id, run) subscription_id, run, boundary AS anchor_date
    FROM boundaries
    ORDER BY subscription_id, run,
             CASE WHEN term_days > 0 THEN 0 ELSE extract(day FROM boundary) END DESC, boundary
)
INSERT INTO anchors
SELECT r.line, subscription_id, f.anchor_date,
       run = max(run) OVER (PARTITION BY subscription_id)
FROM runs r JOIN found f USING (subscription_id, run);

-- name: problems_subscription
SELECT line, 'subscription_ref' AS column_name, subscription_ref AS found,
       'a known subscription' AS expected
FROM incoming i
WHERE NOT EXISTS (SELECT FROM prepaid.subscriptions s WHERE s.subscription_ref = i.subscription_ref)
ORDER BY line;

-- name: problems_dates
SELECT line, 'end_date' AS column_name, end_date::text AS found,
       format('a day after start_date, %s', start_date) AS expected
FROM incoming WHERE end_date <= start_date ORDER BY line;

-- name: problems_decimals
SELECT line, 'price' AS column_name, price::text AS found,
       format('at most %s decimals in %s', exponent, currency) AS expected
FROM resolved WHERE price <> round(price, exponent) ORDER BY line;

-- name: problems_sequence
-- All terms of a subscription in order, in one pass: each start once, no overlap, an order last.
WITH sequence AS (
    SELECT line, start_date, end_date, status,
           min(line) OVER (PARTITION BY subscription_id, start_date) AS first_line,
           max(coalesce(cut_on, end_date)) FILTER (WHERE status <> 'Cancelled') OVER earlier AS busy_until,
           bool_or(status = 'Pending') OVER earlier AS behind_order
    FROM resolved
    WINDOW earlier AS (PARTITION BY subscription_id ORDER BY start_date, line
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT line, 'start_date' AS column_name, start_date::text AS found, CASE
    WHEN line > first_line
        THEN format('each start_date of a subscription once; line %s has it already', first_line)
    WHEN start_date < busy_until
        THEN format('%s or later: until then runs an earlier term of the subscription', busy_until)
    ELSE 'no term behind a Pending order, which is the last one of its subscription' END AS expected
FROM sequence
WHERE line > first_line OR status <> 'Cancelled' AND (start_date < busy_until OR behind_order)
ORDER BY line;

-- name: problems_before_known
-- A new term goes behind the known ones: whatever was made from those, invoices too, stands.
SELECT a.line, 'start_date' AS column_name, a.start_date::text AS found,
       CASE WHEN k.status IN ('Pending', 'Processing')
           THEN format('no new term while service plan %s of the subscription (%s to %s) waits for '
                       'its payment', k.service_plan_id, k.start_date, k.end_date)
           ELSE format('%s or later: until then runs the last known term of the subscription',
                       k.end_date) END AS expected
FROM arriving a JOIN last_known k USING (subscription_id)
WHERE a.status <> 'Cancelled' AND (a.start_date < k.end_date OR k.status IN ('Pending', 'Processing'))
ORDER BY a.line;

-- name: problems_addon_price
SELECT a.line, 'subscription_ref' AS column_name, i.subscription_ref AS found,
       CASE WHEN missing.prices IS NOT NULL
            THEN format('a subscription whose add-ons have a price in %s for a term of %s on %s; '
                        'none has: %s', a.currency,
                        make_interval(months => a.term_months, days => a.term_days), a.start_date,
                        missing.prices)
            ELSE format('a subscription whose add-ons'' tax is known on %s, because their prices '
                        'contain it; no rate is for: %s', a.start_date, missing.rates) END AS expected
FROM arriving a
JOIN incoming i USING (line)
JOIN sold USING (subscription_id, price_place)
CROSS JOIN LATERAL (SELECT
    CASE WHEN a.previous_plan_id IS NULL THEN sold.first_unpriced
         ELSE sold.later_unpriced END AS prices,
    CASE WHEN a.previous_plan_id IS NULL THEN sold.first_untaxed
         ELSE sold.later_untaxed END AS rates) missing
WHERE a.status IN ('Active', 'Expired') AND (missing.prices IS NOT NULL OR missing.rates IS NOT NULL)
ORDER BY a.line;

-- name: differences
-- Pending -> Active -> Expired is what the pipeline itself does in the meantime, and activation may
-- move an order's dates: neither is a difference. Nor is a price before or after discounts.
SELECT r.line, d.column_name, d.found,
       format('but the known term has %L and is not changed', d.known) AS said
FROM resolved r
JOIN prepaid.service_plans p USING (service_plan_id)
LEFT JOIN prepaid.charges ch ON ch.service_plan_id = p.service_plan_id AND ch.line_number = 1
CROSS JOIN LATERAL (SELECT p.price * p.quantity AS price) listed
CROSS JOIN LATERAL (VALUES
    ('end_date', r.end_date::text, p.end_date::text,
     r.end_date <> p.end_date AND r.end_date IS DISTINCT FROM p.full_end_date
         AND p.start_date = p.planned_start),
    ('price', r.price::text, coalesce(ch.net, listed.price)::text,
     r.price <> listed.price AND r.price IS DISTINCT FROM ch.net),
    ('status', r.status, p.status,
     CASE r.status WHEN 'Pending' THEN p.status = 'Cancelled'
                   WHEN 'Active' THEN p.status NOT IN ('Active', 'Expired')
                   WHEN 'Expired' THEN p.status <> 'Expired'
                                       AND (p.status <> 'Active' OR p.end_date > :as_of)
                   ELSE p.status <> 'Cancelled' END)
) d (column_name, found, known, differs)
WHERE d.differs ORDER BY r.line;

-- name: history_arrived
-- In this transaction: a subscription whose term this file brings is never seen without it.
DELETE FROM prepaid.subscriptions_awaiting_history;

-- name: count
SELECT count(*) AS added, 0 AS changed FROM arriving;

-- name: suspend_constraints
-- The first big import spends more than half of its time on checking foreign keys and the exclusion
-- row by row. Into a table that is still empty they are checked once, over all rows, below.
DO $$
DECLARE
    suspended record;
BEGIN
    CREATE TEMP TABLE suspended_constraints (name text, definition text) ON COMMIT DROP;
    IF (SELECT count(*) < 10000 FROM arriving) OR EXISTS (SELECT FROM prepaid.service_plans)
        OR NOT pg_has_role((SELECT relowner FROM pg_class
                            WHERE oid = 'prepaid.service_plans'::regclass), 'USAGE') THEN
        RETURN;
    END IF;
    INSERT INTO suspended_constraints
    SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = 'prepaid.service_plans'::regclass AND contype IN ('f', 'x');
    FOR suspended IN SELECT * FROM suspended_constraints LOOP
        EXECUTE format('ALTER TABLE prepaid.service_plans DROP CONSTRAINT %I', suspended.name);
    END LOOP;
END $$;

-- name: add
INSERT INTO prepaid.service_plans (
    service_plan_id, subscription_id, customer_id, plan_id, previous_plan_id, origin, kind, status,
    start_date, end_date, planned_start, anchor_date, term_months, term_days, opened_on,
    currency, price, addons, customer_name, email, country, tax_exempt, plan_name, tax_class,
    net_amount, recurring_amount, activated_on)
OVERRIDING SYSTEM VALUE
SELECT a.service_plan_id, a.subscription_id, a.customer_id, a.plan_id, a.previous_plan_id,
       'imported', a.kind, a.status,
       a.start_date, a.end_date, a.start_date, coalesce(h.anchor_date, a.start_date),
       a.term_months, a.term_days, NULL,
       a.currency, a.price, with_term.addons, c.name, c.email, c.country, c.tax_exempt,
       l.name, l.tax_class,
       a.price + with_term.net, a.price + coalesce(sold.later_net, 0),
       CASE WHEN a.status <> 'Cancelled' THEN a.start_date END
FROM arriving a
JOIN prepaid.customers c USING (customer_id)
JOIN prepaid.plans l USING (plan_id)
LEFT JOIN sold USING (subscription_id, price_place)
LEFT JOIN anchors h ON h.line = a.line
CROSS JOIN LATERAL (SELECT
    coalesce(CASE WHEN a.previous_plan_id IS NULL THEN sold.first_addons
                  ELSE sold.later_addons END, '[]') AS addons,
    coalesce(CASE WHEN a.previous_plan_id IS NULL THEN sold.first_net
                  ELSE sold.later_net END, 0) AS net) with_term
WHERE a.status <> 'Pending'
ORDER BY a.service_plan_id;

-- name: add_orders
-- The pipeline takes their details itself (step 1); only the agreed price is the order's own.
INSERT INTO prepaid.service_plans (
    service_plan_id, subscription_id, customer_id, plan_id, previous_plan_id, origin, kind, status,
    start_date, end_date, planned_start, anchor_date, term_months, term_days, opened_on,
    currency, price)
OVERRIDING SYSTEM VALUE
SELECT a.service_plan_id, a.subscription_id, a.customer_id, a.plan_id, a.previous_plan_id,
       'pipeline', a.kind, 'Pending', a.start_date, a.end_date, a.start_date,
       CASE a.kind WHEN 'renewal' THEN prepaid.anchor_for(coalesce(h.anchor_date, a.start_date), a.start_date)
                   ELSE a.start_date END,
       a.term_months, a.term_days, NULL, a.currency, a.price
FROM arriving a
LEFT JOIN (SELECT DISTINCT subscription_id, anchor_date FROM anchors WHERE latest) h USING (subscription_id)
WHERE a.status = 'Pending'
ORDER BY a.service_plan_id;

-- name: resume_constraints
DO $$
DECLARE
    suspended record;
BEGIN
    FOR suspended IN SELECT * FROM suspended_constraints ORDER BY name LOOP
        EXECUTE format('ALTER TABLE prepaid.service_plans ADD CONSTRAINT %I %s',
                       suspended.name, suspended.definition);
    END LOOP;
END $$;

-- name: move_anchors
UPDATE prepaid.subscriptions s SET anchor_date = h.anchor_date
FROM (SELECT DISTINCT subscription_id, anchor_date FROM anchors WHERE latest AND line IS NOT NULL) h
WHERE h.subscription_id = s.subscription_id AND h.anchor_date <> s.anchor_date;

-- name: analyze
-- Only the columns that rows are found by: the snapshots would take most of the time.
ANALYZE prepaid.service_plans (
    service_plan_id, subscription_id, customer_id, plan_id, previous_plan_id, origin, kind, status,
    start_date, end_date, planned_start, currency, term_months, term_days, activated_on, invoiced_at);
