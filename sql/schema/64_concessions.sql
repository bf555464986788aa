-- Giving away needs a signature: what a term costs less than by the price list because a person said so
-- waits for finance before it is invoiced (step 3; for an invoice over 0 of an earlier release, step 6).

-- What each term that is being worked on costs beside the price list. An own price is a person's if a person
-- asked for it (prepaid.requests) and nothing else was written since; a discount if a person wrote it last.
-- All else was imported or agreed before. Without a list price there is nothing to compare with.
-- The look-ups per plan go from what is cheap to what is rare.
CREATE VIEW prepaid.terms_below_list AS
SELECT p.service_plan_id, p.subscription_id, p.plan_id, p.currency, p.status, p.price AS unit_price, p.quantity,
       p.discounts, listed.unit_net AS list_price, amounts.list_net, amounts.net,
       below.far AS price_is_far_below, below.any_at_all AND said.price AS price_is_a_persons,
       first_line.discount >= first_line.list_amount AND first_line.list_amount > 0 AS discount_is_whole,
       said.discount AS discount_is_a_persons, amounts.net = 0 AND amounts.list_net > 0 AS nothing_to_pay,
       i.imported_concessions_wait
FROM prepaid.service_plans p
CROSS JOIN prepaid.installation i
JOIN LATERAL (SELECT * FROM prepaid.charges
              WHERE service_plan_id = p.service_plan_id AND line_number = 1 OFFSET 0) first_line ON true
LEFT JOIN LATERAL (
    -- An order's price is that of all units of the subscription.
    SELECT CASE WHEN l.includes_tax THEN prepaid.without_tax(l.price, coalesce(first_line.tax_rate, 0), m.exponent)
                ELSE l.price END * CASE WHEN p.opened_on IS NULL THEN (
                    SELECT s.quantity FROM prepaid.subscriptions s WHERE s.subscription_id = p.subscription_id)
                ELSE 1 END AS unit_net
    FROM (SELECT * FROM prepaid.plan_prices
          WHERE plan_id = p.plan_id AND currency = p.currency AND valid_from <= p.start_date
          ORDER BY valid_from DESC LIMIT 1) l
    JOIN prepaid.currencies m ON m.currency = p.currency) listed ON true
CROSS JOIN LATERAL (
    SELECT coalesce(NOT p.price_includes_tax AND p.price < listed.unit_net, false) AS any_at_all,
           coalesce(NOT p.price_includes_tax
                    AND p.price < listed.unit_net * (100 - i.concession_percent) / 100, false) AS far) below
CROSS JOIN LATERAL (
    SELECT sum(c.net) AS net, sum(CASE
               WHEN c.line_number = 1 AND NOT p.price_includes_tax
                   THEN coalesce(listed.unit_net, p.price) * p.quantity
               WHEN c.includes_tax THEN prepaid.without_tax(c.list_amount, coalesce(c.tax_rate, 0), m.exponent)
               ELSE c.list_amount END) AS list_net
    FROM prepaid.charges c JOIN prepaid.currencies m ON m.currency = c.currency
    WHERE c.service_plan_id = p.service_plan_id OFFSET 0) amounts
CROSS JOIN LATERAL (
    SELECT below.any_at_all AND p.opened_on IS NOT NULL AND EXISTS (
               SELECT FROM prepaid.requests r
               WHERE r.subscription_id = p.subscription_id AND r.kind = 'change'
                 AND (r.after ->> 'plan_id')::bigint = p.plan_id AND (r.after ->> 'price')::numeric = p.price
                 AND (r.before -> 'plan_id', r.before -> 'price') IS DISTINCT FROM
                     (r.after -> 'plan_id', r.after -> 'price')) AS price,
           p.discounts IS NOT NULL AND EXISTS (
               SELECT FROM jsonb_to_recordset(p.discounts) given (discount_code text)
               JOIN prepaid.discounts d ON d.subscription_id = p.subscription_id
                   AND d.discount_code = given.discount_code
               CROSS JOIN LATERAL (SELECT a.actor FROM prepaid.audit_log a
                   WHERE a.service_plan_id IS NULL AND a.entity = 'discount' AND a.entity_id = d.discount_id
                   ORDER BY a.audit_id DESC LIMIT 1) last
               JOIN prepaid.desk_accounts person ON person.person = last.actor) AS discount OFFSET 0) said
WHERE below.any_at_all OR p.discounts IS NOT NULL;

-- Those of them that nobody in finance has approved. Once approved, it holds for later terms of the
-- subscription on the same plan at that price or more, with no more units and no other discounts.
CREATE VIEW prepaid.unapproved_concessions AS
SELECT t.service_plan_id, t.status, jsonb_build_object(
           'plan_id', t.plan_id, 'currency', t.currency, 'unit_price', t.unit_price, 'quantity', t.quantity,
           'discounts', t.discounts, 'list_net', t.list_net, 'net', t.net, 'why', concat_ws('; ',
               CASE WHEN t.price_is_far_below
                    THEN format('its own price is %s, the list price %s',
                                round(t.unit_price, m.exponent), round(t.list_price, m.exponent)) END,
               CASE WHEN t.discount_is_whole THEN 'the discount takes all of the plan''s price' END,
               CASE WHEN t.nothing_to_pay THEN 'nothing is left to pay' END)) AS concession
FROM prepaid.terms_below_list t
JOIN prepaid.currencies m ON m.currency = t.currency
WHERE (t.price_is_far_below AND (t.price_is_a_persons OR t.imported_concessions_wait)
       OR t.discount_is_whole AND (t.discount_is_a_persons OR t.imported_concessions_wait)
       OR t.nothing_to_pay AND (t.price_is_a_persons OR t.discount_is_a_persons OR t.imported_concessions_wait))
  AND NOT EXISTS (
      SELECT FROM prepaid.service_plans earlier
      JOIN prepaid.tasks k USING (service_plan_id)
      WHERE earlier.subscription_id = t.subscription_id AND k.kind = 'price_concession'
        AND k.status = 'Done' AND k.decision = 'approved'
        AND (k.concession ->> 'plan_id')::bigint = t.plan_id
        AND (k.concession ->> 'unit_price')::numeric <= t.unit_price
        AND (k.concession ->> 'quantity')::integer >= t.quantity
        AND (t.discounts IS NULL OR k.concession -> 'discounts' = t.discounts));

CREATE FUNCTION prepaid.concession_text(concession jsonb) RETURNS text LANGUAGE sql IMMUTABLE RETURN format(
    'Finance is asked about its price, %s %s instead of %s: %s. It continues when finance approves the task.',
    concession ->> 'net', concession ->> 'currency', concession ->> 'list_net', concession ->> 'why');

-- Has finance asked about the prices of plans, and holds them until it has decided.
CREATE FUNCTION prepaid.hold_concessions(plans bigint[], opened date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH asked AS MATERIALIZED (
        SELECT u.service_plan_id, u.concession FROM prepaid.unapproved_concessions u
        WHERE u.service_plan_id = ANY (plans) AND u.status IN ('Pending', 'Processing')
    ), tasks AS (
        INSERT INTO prepaid.tasks (kind, service_plan_id, concession, assigned_role, opened_on, due_on)
        SELECT 'price_concession', a.service_plan_id, a.concession, prepaid.team_of('price_concession'),
               opened, prepaid.task_due_on(opened)
        FROM asked a ORDER BY a.service_plan_id
        ON CONFLICT DO NOTHING
    )
    INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
    SELECT a.service_plan_id, 'price_concession', prepaid.concession_text(a.concession)
    FROM asked a ORDER BY a.service_plan_id
    ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
END $$;

-- Plans that are not invoiced take their price again from the subscription, as void_invoice has it for those
-- that are; finance need not decide about the old one any more. An order keeps the price that was agreed.
CREATE FUNCTION prepaid.take_price_again(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE prepaid.tasks k SET status = 'Withdrawn'
    WHERE k.service_plan_id = ANY (plans) AND k.kind = 'price_concession'
      AND (k.status = 'Open' OR k.status = 'Done' AND k.decision = 'rejected');
    UPDATE prepaid.holds h
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the price is taken again'
    WHERE h.service_plan_id = ANY (plans) AND h.reason_code = 'price_concession' AND h.released_at IS NULL;
    DELETE FROM prepaid.charges c USING prepaid.service_plans p
    WHERE p.service_plan_id = ANY (plans) AND p.invoiced_at IS NULL AND c.service_plan_id = p.service_plan_id;
    UPDATE prepaid.service_plans p
    SET status = 'Pending', retrieved_at = NULL, price = CASE WHEN p.opened_on IS NULL THEN p.price END
    WHERE p.service_plan_id = ANY (plans) AND p.invoiced_at IS NULL AND p.status IN ('Pending', 'Processing');
    UPDATE prepaid.unsettled_plans u SET batch_id = NULL
    FROM prepaid.service_plans p
    WHERE p.service_plan_id = ANY (plans) AND p.invoiced_at IS NULL AND u.service_plan_id = p.service_plan_id;
END $$;

-- What finance is asked to give away, beside the price list, with who asked for it and why.
-- UPDATE … SET decision = 'approved' | 'rejected', note = '…' WHERE task_id = …
CREATE VIEW prepaid.price_concessions AS
SELECT k.task_id, k.status, k.opened_on, k.service_plan_id, c.customer_ref, c.name AS customer_name,
       s.subscription_ref, l.name AS plan_name, p.kind, k.concession ->> 'currency' AS currency,
       (k.concession ->> 'quantity')::integer AS quantity, (k.concession ->> 'unit_price')::numeric AS unit_price,
       (k.concession ->> 'list_net')::numeric AS list_net, (k.concession ->> 'net')::numeric AS net,
       k.concession ->> 'why' AS why, asked.asked_by, asked.note AS asked_why,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to,
       CASE WHEN EXISTS (SELECT FROM prepaid.two_person_tasks two WHERE two.task_id = k.task_id)
            THEN 2 ELSE 1 END AS approvals_needed,
       k.first_approved_by, k.first_approved_at, w.why_not, w.why_not IS NULL AS may_decide
FROM prepaid.tasks k
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.subscriptions s USING (subscription_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
JOIN prepaid.plans l ON l.plan_id = (k.concession ->> 'plan_id')::bigint
LEFT JOIN LATERAL (
    SELECT r.asked_by, r.note FROM prepaid.requests r
    WHERE r.subscription_id = p.subscription_id AND r.kind = 'change'
      AND (r.after ->> 'plan_id')::bigint = l.plan_id
      AND (r.after ->> 'price')::numeric = (k.concession ->> 'unit_price')::numeric
    ORDER BY r.request_id DESC LIMIT 1) asked ON true
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM prepaid.team_members m
                         WHERE m.team = k.assigned_role AND m.person = prepaid.acting_person())
            THEN format('only %s decides on prices', k.assigned_role)
        WHEN k.status = 'Open' AND k.first_approved_by = prepaid.acting_person()
            THEN 'you have approved it already, as the first of two'
        ELSE (SELECT 'you ' || e.what || CASE WHEN EXISTS (
                  SELECT FROM prepaid.tasks_nobody_may_decide u WHERE u.task_id = k.task_id)
                  THEN format('; nobody in %s may decide it, so add somebody to the team', k.assigned_role) ELSE '' END
              FROM prepaid.four_eyes e
              WHERE e.task_id = k.task_id AND e.person = prepaid.acting_person() LIMIT 1)
    END AS why_not OFFSET 0) w
WHERE k.kind = 'price_concession' AND k.status <> 'Withdrawn';
CREATE TRIGGER decide INSTEAD OF UPDATE ON prepaid.price_concessions
    FOR EACH ROW EXECUTE FUNCTION prepaid.decide_from_view();
