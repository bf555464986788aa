-- Plans that wait for a person to put something right, and their release.

-- Why a plan can be held, and what a person does about it. A hold that is about money is released by
-- those who may do that alone (prepaid.teams); one that is about an invoice ends when it is voided.
CREATE TABLE prepaid.hold_reasons (
    reason_code text PRIMARY KEY,
    about_money boolean NOT NULL,
    about_invoice boolean NOT NULL,
    advice text NOT NULL
);
INSERT INTO prepaid.hold_reasons (reason_code, about_money, about_invoice, advice) VALUES
    ('no_email', false, false,
     'add the customer''s address (on the plan''s page at the sign-off desk, or customers.csv)'),
    ('no_price', false, false,
     'give the plan a price in that currency that is valid on the term''s first day, or give '
     'the subscription its own'),
    ('no_addon_price', false, false,
     'add the add-on''s price for that term length, currency and day'),
    ('no_tax_rate', false, false,
     'add the rate of that country and tax class; a missing rate is never taken to be 0 %'),
    ('payment_rejected', true, true,
     'clear it up with the customer; releasing opens a new task on the same invoice'),
    ('payment_mismatch', true, true,
     'the matched record no longer fits the invoice: ask the payment provider'),
    ('payment_reversed', true, true,
     'the payment was refunded, charged back or failed after all. The hold ends when a payment '
     'stands again, when the plan is cancelled at once, or, once the term is over, when the '
     'invoice is voided; it cannot be released by hand'),
    ('subscription_cancelled', false, false,
     'the customer left after the term was opened: ask; releasing continues with the term'),
    ('overlapping_term', false, false,
     'cancel one of the two terms'),
    ('change_paid_late', true, false,
     'a change of plan was paid after the days of grace: release it (the days used meanwhile '
     'are given away) or cancel the plan'),
    ('credit_not_paid', true, false,
     'the days that pay for a change of plan were charged back: clear that up, or cancel the '
     'plan'),
    ('credit_differs', true, false,
     'the tax rates at which imported days were credited have been changed: correct them, or '
     'cancel the plan'),
    ('invoice_voided', true, false,
     'finance voided the invoice: release the hold for a new one, or cancel the plan'),
    ('quality_failed', false, false,
     'fix the feature and decide the follow-up task; it does not block the next renewal'),
    ('step_failed', false, false,
     'correct the data that the text names'),
    ('price_concession', true, false,
     'it costs less than by list, because a person said so, and finance decides the task. Approved, the plan '
     'continues; rejected, change the price and release the hold, or cancel the plan');

-- A held plan keeps its status and leaves its batch; when a person releases it, it continues where
-- it stopped.
CREATE TABLE prepaid.holds (
    hold_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_plan_id bigint NOT NULL REFERENCES prepaid.service_plans,
    reason_code text NOT NULL REFERENCES prepaid.hold_reasons,
    text text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    released_by text,
    note text,
    CHECK ((released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX holds_one_live_per_reason ON prepaid.holds (service_plan_id, reason_code)
    WHERE released_at IS NULL;

CREATE FUNCTION prepaid.audit_new_holds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, after, actor, run_id, as_of)
    SELECT 'hold_placed', service_plan_id, 'hold', hold_id, reason_code,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_new_holds AFTER INSERT ON prepaid.holds
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_new_holds();

CREATE FUNCTION prepaid.audit_released_holds() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, actor, run_id, as_of)
    SELECT 'hold_released', n.service_plan_id, 'hold', n.hold_id, n.reason_code,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (hold_id)
    WHERE n.released_at IS NOT NULL AND o.released_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_released_holds AFTER UPDATE ON prepaid.holds
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_released_holds();

-- Plans that wait for a person to put something right. The text says what can be done. What finance wrote
-- about a payment is for those who may read payments: others read what is done about such a hold.
CREATE VIEW prepaid.held_plans AS
SELECT h.hold_id, h.service_plan_id, p.status, c.customer_ref, c.name AS customer_name, l.name AS plan_name,
       i.invoice_number, h.reason_code,
       CASE WHEN r.about_money AND NOT (SELECT prepaid.reads_about_money()) THEN r.advice ELSE h.text END
           AS text,
       h.held_at,
       (SELECT string_agg(t.team, ', ' ORDER BY t.team) FROM prepaid.teams t
        WHERE CASE WHEN r.about_money THEN 'release holds about money' ELSE 'release holds' END
            = ANY (t.may)) AS released_by_team
FROM prepaid.holds h
JOIN prepaid.hold_reasons r USING (reason_code)
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.plans l ON l.plan_id = p.plan_id
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE h.released_at IS NULL;

-- Releases every live hold of a plan under the acting person's name; the plan continues where it stopped.
-- A released rejection opens a new verification task on the same invoice. Not everybody may release holds
-- about money; a payment that was taken back is not made good by releasing. Returns the holds released.
CREATE FUNCTION prepaid.release_holds(plan bigint, release_note text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_may('release holds');
    about_money CONSTANT text[] := prepaid.teams_that_may('release holds about money');
    released integer;
    rejected boolean;
    reversed boolean;
    money text;
    unpaid text;
    asked bigint;
BEGIN
    IF coalesce(release_note, '') !~ '\S' THEN
        RAISE EXCEPTION 'releasing a hold needs a note that says what was done';
    END IF;
    -- Tasks before holds, as decide_tasks has them.
    PERFORM prepaid.lock_tasks_of(p.customer_id) FROM prepaid.service_plans p WHERE p.service_plan_id = plan;
    SELECT k.task_id INTO asked FROM prepaid.tasks k
    WHERE k.service_plan_id = plan AND k.kind = 'price_concession' AND k.status = 'Open';
    IF FOUND THEN
        RAISE EXCEPTION 'service plan % waits for finance to decide about its price (task %): approve or reject '
            'that, change the price, or cancel the plan', plan, asked;
    END IF;
    -- What was released is asked of the release itself: a rejection at this very moment is either
    -- among it or stays a hold.
    WITH freed AS (
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = release_note
        WHERE h.service_plan_id = plan AND h.released_at IS NULL
        RETURNING h.reason_code
    )
    SELECT count(*), bool_or(reason_code = 'payment_rejected'), bool_or(reason_code = 'payment_reversed'),
           string_agg(reason_code, ', ' ORDER BY reason_code) FILTER (WHERE r.about_money)
    INTO released, rejected, reversed, money FROM freed JOIN prepaid.hold_reasons r USING (reason_code);
    IF released = 0 THEN
        RAISE EXCEPTION 'service plan % is not held', plan;
    END IF;
    IF money IS NOT NULL AND NOT prepaid.is_in_team(person, VARIADIC about_money) THEN
        RAISE EXCEPTION '% may not release %: it is about money, only % can', person, money,
            array_to_string(about_money, ' and ');
    END IF;
    SELECT i.invoice_number INTO unpaid FROM prepaid.invoices i
    WHERE i.service_plan_id = plan AND i.status = 'Open' AND reversed;
    IF FOUND THEN
        RAISE EXCEPTION 'the payment of invoice % was reversed, and releasing does not pay it: the hold ends '
            'with a payment that stands, when the plan is cancelled at once, or, once the term is over, '
            'when the invoice is voided', unpaid;
    END IF;
    IF rejected THEN
        UPDATE prepaid.tasks k SET status = 'Withdrawn'
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND k.invoice_id = i.invoice_id
          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
          AND k.decision IS DISTINCT FROM 'approved';
        INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on, due_on)
        SELECT 'payment_verification', plan, i.invoice_id, prepaid.team_of('payment_verification'),
               prepaid.today(), prepaid.task_due_on(prepaid.today())
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND i.payable > 0
          AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn');
    END IF;
    -- The price that finance rejected is taken again, as it is by now, and asked about again if need be.
    PERFORM prepaid.take_price_again(ARRAY[plan])
    WHERE EXISTS (SELECT FROM prepaid.tasks k WHERE k.service_plan_id = plan AND k.kind = 'price_concession'
                  AND k.status = 'Done' AND k.decision = 'rejected');
    PERFORM prepaid.withdraw_own_approvals_of(p.customer_id)
    FROM prepaid.service_plans p WHERE p.service_plan_id = plan;
    RETURN released;
END $$;
