-- Who decides: four eyes as a property of the outcome, no approval of what no record pays, and finance's
-- approval of what is given away. Functions and views are those of sql/schema; replaced, so that their rights
-- stay as they are.

ALTER TABLE prepaid.installation
    ADD COLUMN concession_percent numeric NOT NULL DEFAULT 0 CHECK (concession_percent BETWEEN 0 AND 100),
    ADD COLUMN imported_concessions_wait boolean NOT NULL DEFAULT false;

ALTER TABLE prepaid.tasks ADD COLUMN concession jsonb;
ALTER TABLE prepaid.tasks DROP CONSTRAINT tasks_kind_check, DROP CONSTRAINT tasks_check1;
ALTER TABLE prepaid.tasks
    ADD CONSTRAINT tasks_kind_check CHECK (kind IN (
        'payment_verification', 'payment_review', 'payment_refund', 'price_concession',
        'quality_check', 'quality_follow_up')),
    ADD CONSTRAINT tasks_check1 CHECK (
        decision IS NULL OR decision IN ('approved', 'rejected') AND kind NOT LIKE 'quality%'
        OR decision IN ('passed', 'failed') AND kind LIKE 'quality%'),
    ADD CONSTRAINT tasks_concession_says_what CHECK (
        kind <> 'price_concession' OR service_plan_id IS NOT NULL AND concession IS NOT NULL);

INSERT INTO prepaid.hold_reasons (reason_code, about_money, about_invoice, advice) VALUES
    ('price_concession', true, false,
     'it costs less than by list, because a person said so, and finance decides the task. Approved, the plan '
     'continues; rejected, change the price and release the hold, or cancel the plan');

-- The state machine of invoices. Whatever is not written here is refused, whoever asks; so is any
-- edit of what was issued.

CREATE OR REPLACE FUNCTION prepaid.check_invoice_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'Open' AND NEW.status = 'Void' THEN
        RETURN NEW;
    END IF;
    IF OLD.status = 'Paid' AND NEW.status = 'Open' THEN
        PERFORM FROM prepaid.transactions t
        WHERE t.invoice_id = NEW.invoice_id AND t.status = 'Success' AND t.outcome <> 'matched';
        IF FOUND AND NEW.transaction_id IS NULL THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'invoice % stays Paid: its payment stands', NEW.invoice_number;
    END IF;
    IF NOT (OLD.status = 'Open' AND NEW.status = 'Paid') THEN
        RAISE EXCEPTION 'invoice % cannot go from % to %', NEW.invoice_number, OLD.status, NEW.status;
    END IF;
    -- A full discount or a credit leaves nothing to pay, so nothing to verify. (The column payable is
    -- not computed yet in a BEFORE trigger.)
    IF NEW.total - NEW.credit = 0 THEN
        IF NEW.total = 0 AND EXISTS (SELECT FROM prepaid.unapproved_concessions u
                                     WHERE u.service_plan_id = NEW.service_plan_id) THEN
            RAISE EXCEPTION 'invoice % cannot be Paid: nobody in finance has approved that it is over 0',
                NEW.invoice_number;
        END IF;
        RETURN NEW;
    END IF;
    PERFORM FROM prepaid.transactions t
    WHERE t.invoice_id = NEW.invoice_id AND t.outcome = 'matched'
    HAVING bool_and(t.status = 'Success' AND t.currency = NEW.currency)
       AND bool_or(t.transaction_id = NEW.transaction_id)
       AND (sum(t.amount) = NEW.total - NEW.credit
            OR sum(t.amount) > NEW.total - NEW.credit AND bool_and(t.assigned_by IS NOT NULL));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invoice % cannot be Paid: no matched payment record of % %',
            NEW.invoice_number, NEW.total - NEW.credit, NEW.currency;
    END IF;
    -- FOR SHARE: a rejection at this very moment waits, and is refused once the invoice is Paid.
    PERFORM FROM prepaid.tasks k
    WHERE k.invoice_id = NEW.invoice_id AND k.kind = 'payment_verification'
      AND k.status = 'Done' AND k.decision = 'approved'
    FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invoice % cannot be Paid: no finance officer has approved its payment',
            NEW.invoice_number;
    END IF;
    RETURN NEW;
END $$;

CREATE UNIQUE INDEX tasks_one_open_concession_per_plan ON prepaid.tasks (service_plan_id)
    WHERE kind = 'price_concession' AND status = 'Open';

-- Which tasks need two people, as the limits are now.
CREATE OR REPLACE VIEW prepaid.two_person_tasks AS
SELECT k.task_id, l.amount AS above, l.currency
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.approval_limits l ON l.currency = i.currency AND i.payable > l.amount
WHERE k.kind = 'payment_verification'
UNION ALL
SELECT k.task_id, l.amount, l.currency
FROM prepaid.tasks k
JOIN prepaid.credit_notes n USING (credit_note_id)
JOIN prepaid.approval_limits l ON l.currency = n.currency AND n.refund > l.amount
WHERE k.kind = 'payment_refund'
UNION ALL
SELECT k.task_id, l.amount, l.currency
FROM prepaid.tasks k
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.approval_limits l ON l.currency = p.currency
    AND (k.concession ->> 'list_net')::numeric - (k.concession ->> 'net')::numeric > l.amount
WHERE k.kind = 'price_concession';

-- The columns that an entry of master data names: 'email, name', or 'price: 10 -> 1, quantity: 1 -> 3'.
CREATE FUNCTION prepaid.changed_columns(detail text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_agg(named.part[1])
    FROM regexp_matches(detail, '(?:^|[,;] )([a-z_]+)(?=:|,|;|$)', 'g') named (part)
$$;

-- Who gave a customer, a subscription or a discount what it has now: each change of which at least one
-- column was not changed again since. (A job that could not open the plan has changed nothing.)
CREATE VIEW prepaid.master_data_in_force AS
SELECT a.entity, a.entity_id, a.actor AS person, a.at, a.audit_id
FROM prepaid.audit_log a
WHERE a.service_plan_id IS NULL AND a.entity IN ('customer', 'subscription', 'discount')
  AND a.event <> 'opening_failed'
  AND (prepaid.changed_columns(a.detail) <@ ARRAY(
      SELECT unnest(prepaid.changed_columns(later.detail)) FROM prepaid.audit_log later
      WHERE later.service_plan_id IS NULL AND later.entity = a.entity AND later.entity_id = a.entity_id
        AND later.audit_id > a.audit_id AND later.event <> 'opening_failed')) IS NOT TRUE;

-- Four eyes: who may not decide on which task of money, and why. Who opened or changed the plan, its
-- invoice or its payment, and who gave the customer, the subscription or a discount what it has now; the
-- audit log knows them, whatever came first. An import is nobody's. (The hold of a rejection that is
-- released while its task stands was released by deciding; that of a concession by deciding, or to ask again.)
CREATE OR REPLACE VIEW prepaid.four_eyes AS
SELECT k.task_id, hand.person, hand.what, hand.at
FROM prepaid.tasks k
JOIN prepaid.service_plans p USING (service_plan_id)
CROSS JOIN LATERAL (
    SELECT a.actor AS person, CASE a.event
               WHEN 'hold_released' THEN 'released a hold of the plan'
               WHEN 'transaction_assigned' THEN 'assigned the payment to the invoice'
               WHEN 'invoice_reissue_requested' THEN 'had the invoice issued again'
               WHEN 'change_requested' THEN 'opened the plan, as a change of another'
               WHEN 'invoice_void_requested' THEN 'had the invoice voided'
               WHEN 'invoice_void' THEN 'had the invoice voided'
               WHEN 'term_cut' THEN 'cut the term'
               WHEN 'credit_note_issued' THEN 'had the credit note issued'
               ELSE 'cancelled the plan' END AS what, a.at
    FROM prepaid.audit_log a
    WHERE a.service_plan_id = k.service_plan_id
      AND a.event IN ('hold_released', 'transaction_assigned', 'change_requested',
                      'cancellation_requested', 'invoice_void_requested', 'invoice_reissue_requested',
                      'service_plan_cancelled', 'term_cut', 'invoice_void', 'credit_note_issued')
      -- Who deals with a payment later has no hand in the price that it is of.
      AND (k.kind <> 'price_concession' OR a.event = 'change_requested')
      AND NOT (a.event = 'hold_released' AND a.before = 'payment_rejected' AND a.at > k.opened_at)
      AND NOT (a.event = 'hold_released' AND a.before = 'price_concession')
    UNION ALL
    SELECT m.person, 'last changed the customer''s data', m.at
    FROM prepaid.master_data_in_force m WHERE m.entity = 'customer' AND m.entity_id = p.customer_id
    UNION ALL
    SELECT m.person, 'last changed the subscription', m.at
    FROM prepaid.master_data_in_force m
    WHERE m.entity = 'subscription' AND m.entity_id = p.subscription_id
    UNION ALL
    SELECT m.person, 'last changed a discount of the subscription', m.at
    FROM prepaid.discounts d
    -- From the few discounts of one subscription: their entries are by id, and not all of them by who.
    CROSS JOIN LATERAL (SELECT * FROM prepaid.master_data_in_force
                        WHERE entity = 'discount' AND entity_id = d.discount_id OFFSET 0) m
    WHERE d.subscription_id = p.subscription_id
) hand
WHERE k.kind IN ('payment_verification', 'payment_refund', 'price_concession');

-- Open tasks that nobody may decide: everybody in the team had a hand in it, or has approved it as the
-- first of two, or there is nobody in the team.
CREATE VIEW prepaid.tasks_nobody_may_decide AS
WITH members AS MATERIALIZED (SELECT m.team, m.person FROM prepaid.team_members m)
SELECT k.task_id, k.kind, k.assigned_role AS team, k.service_plan_id
FROM prepaid.tasks k
WHERE k.status = 'Open' AND NOT EXISTS (
    SELECT FROM members m
    WHERE m.team = k.assigned_role AND m.person IS DISTINCT FROM k.first_approved_by
      AND NOT EXISTS (SELECT FROM prepaid.four_eyes e
                      WHERE e.task_id = k.task_id AND e.person = m.person));

-- Approvals by somebody who had a hand in it, before or after: they do not stand. Not of what is over: an
-- invoice that is Paid, a refund that was made, a price that was invoiced.
CREATE VIEW prepaid.own_approvals AS
SELECT k.task_id, k.service_plan_id, own.person, own.what
FROM prepaid.tasks k
CROSS JOIN LATERAL (
    SELECT e.person, e.what FROM prepaid.four_eyes e
    WHERE e.task_id = k.task_id
      AND e.person IN (k.first_approved_by, CASE k.decision WHEN 'approved' THEN k.decided_by END)
    LIMIT 1) own
WHERE k.status = 'Open' AND k.first_approved_by IS NOT NULL
   OR k.status = 'Done' AND k.decision = 'approved' AND CASE k.kind
        WHEN 'payment_verification' THEN EXISTS (
            SELECT FROM prepaid.invoices i WHERE i.invoice_id = k.invoice_id AND i.status = 'Open')
        WHEN 'price_concession' THEN NOT EXISTS (
            SELECT FROM prepaid.invoices i WHERE i.service_plan_id = k.service_plan_id AND i.status <> 'Void')
        ELSE false END;

-- Whether the records that are matched to an invoice pay it: what step 7 asks for.
CREATE FUNCTION prepaid.payment_stands(invoice bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(bool_and(t.status = 'Success' AND t.currency = i.currency)
        AND (sum(t.amount) = i.payable OR sum(t.amount) > i.payable AND bool_and(t.assigned_by IS NOT NULL)),
        false)
    FROM prepaid.invoices i JOIN prepaid.transactions t ON t.invoice_id = i.invoice_id
    WHERE i.invoice_id = invoice AND t.outcome = 'matched'
    GROUP BY i.invoice_id
$$;

-- Approvals of payments that no record pays: of a record that was parked when it was judged, or taken by an
-- earlier release.
CREATE VIEW prepaid.approvals_without_payment AS
SELECT k.task_id, k.service_plan_id, coalesce(k.decided_by, k.first_approved_by) AS person,
       'approved a payment that no record pays' AS what
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
WHERE k.kind = 'payment_verification' AND i.status = 'Open'
  AND (k.status = 'Open' AND k.first_approved_by IS NOT NULL
       OR k.status = 'Done' AND k.decision = 'approved')
  AND prepaid.payment_stands(i.invoice_id) IS NOT TRUE
  -- What has landed and is not judged yet may be on its way to pay it.
  AND NOT EXISTS (SELECT FROM prepaid.transactions t WHERE t.invoice_id = i.invoice_id AND t.outcome IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_number = i.invoice_number AND t.outcome IS NULL);

-- Takes approvals back and asks the team anew; the price of a plan that is not invoiced waits again.
CREATE FUNCTION prepaid.ask_anew(task_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE prepaid.tasks SET status = 'Withdrawn' WHERE task_id = ANY (task_ids) AND status <> 'Withdrawn';
    INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, credit_note_id, concession, assigned_role,
                               opened_on, due_on)
    SELECT k.kind, k.service_plan_id, k.invoice_id, k.credit_note_id, k.concession, k.assigned_role,
           prepaid.today(), prepaid.task_due_on(prepaid.today())
    FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id;
    INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
    SELECT k.service_plan_id, 'price_concession', prepaid.concession_text(k.concession)
    FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) AND k.kind = 'price_concession'
    ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
END $$;

-- Takes back what somebody with a hand in these plans has approved. Whoever acts on a plan calls it in the
-- same transaction, and step 7 once more. The tasks are locked first: an approval at this very moment is
-- seen, or sees the act. Returns how many.
CREATE FUNCTION prepaid.withdraw_own_approvals(plans bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    own bigint[];
BEGIN
    PERFORM FROM prepaid.tasks k
    WHERE k.service_plan_id = ANY (plans) AND k.status <> 'Withdrawn' AND k.assigned_role = 'finance'
    ORDER BY k.task_id FOR NO KEY UPDATE;
    own := ARRAY(SELECT o.task_id FROM prepaid.own_approvals o WHERE o.service_plan_id = ANY (plans)
                 ORDER BY o.task_id);
    IF own = '{}' THEN
        RETURN 0;
    END IF;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, detail, actor, run_id, as_of)
    SELECT 'approval_withdrawn', o.service_plan_id, 'task', o.task_id, 'approved',
           format('%s %s: somebody else decides', o.person, o.what),
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM prepaid.own_approvals o WHERE o.task_id = ANY (own) ORDER BY o.task_id;
    PERFORM prepaid.ask_anew(own);
    -- Who acts is told at once; the story tells the others.
    RAISE NOTICE 'this takes approvals back (task %), because who acts on it does not approve it: somebody else '
        'decides', array_to_string(own, ', ');
    RETURN cardinality(own);
END $$;

-- An act on one plan may concern all of its customer. Whoever acts first locks the tasks of all of them, in
-- the order in which people's decisions and step 7 lock theirs, and at last takes back what is to be.
CREATE FUNCTION prepaid.lock_tasks_of(customer bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM prepaid.tasks k
    WHERE k.service_plan_id = ANY (ARRAY(
            SELECT p.service_plan_id FROM prepaid.subscriptions s
            JOIN prepaid.service_plans p USING (subscription_id) WHERE s.customer_id = customer))
    ORDER BY k.task_id FOR NO KEY UPDATE;
END $$;

CREATE FUNCTION prepaid.withdraw_own_approvals_of(customer bigint) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    RETURN prepaid.withdraw_own_approvals(ARRAY(
        SELECT p.service_plan_id FROM prepaid.subscriptions s JOIN prepaid.service_plans p USING (subscription_id)
        WHERE s.customer_id = customer));
END $$;

-- Judges all open approvals, by these rules, for 'prepaid migrate': what an earlier release let pass is
-- taken back, and finance is asked again. Returns each in words.
CREATE FUNCTION prepaid.judge_open_approvals() RETURNS TABLE (task_id bigint, said text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM prepaid.tasks k
    WHERE k.task_id IN (SELECT task_id FROM prepaid.own_approvals
                        UNION ALL SELECT task_id FROM prepaid.approvals_without_payment)
    ORDER BY k.task_id FOR NO KEY UPDATE;
    RETURN QUERY
    WITH unsound AS MATERIALIZED (
        SELECT DISTINCT ON (u.task_id) u.* FROM (
            SELECT * FROM prepaid.own_approvals UNION ALL SELECT * FROM prepaid.approvals_without_payment) u
        ORDER BY u.task_id
    ), noted AS (
        INSERT INTO prepaid.audit_log
            (event, service_plan_id, entity, entity_id, before, detail, actor, run_id, as_of)
        SELECT 'approval_withdrawn', u.service_plan_id, 'task', u.task_id, 'approved',
               format('%s %s', u.person, u.what), prepaid.actor(), prepaid.run_id(), prepaid.as_of()
        FROM unsound u ORDER BY u.task_id
    ), asked AS (
        SELECT prepaid.ask_anew(coalesce(array_agg(u.task_id), '{}')) FROM unsound u
    )
    SELECT k.task_id, format('%s: %s %s', coalesce('invoice ' || i.invoice_number,
                                                   'service plan ' || k.service_plan_id), u.person, u.what)
    FROM asked CROSS JOIN unsound u JOIN prepaid.tasks k USING (task_id) LEFT JOIN prepaid.invoices i USING (invoice_id)
    ORDER BY k.task_id;
END $$;

-- Decides tasks for the person who is acting (the role that is set, or the session's user).
-- All or nothing. Returns how many decisions were recorded; the same decision again is not one. Above
-- the limit the first approval leaves the task Open; a rejection needs one person.
CREATE OR REPLACE FUNCTION prepaid.decide_tasks(task_ids bigint[], new_decision text, new_note text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp
-- All look-ups are by key, so one plan is right for 1 task and for 3,000; planning again cost as much.
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    person text := prepaid.acting_person();
    teams text[] := ARRAY(SELECT m.team FROM prepaid.team_members m WHERE m.person = acting_person());
    recorded integer;
    refused record;
BEGIN
    -- In a session of one's own prepaid.actor could say anything: the audit log names the person.
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id FOR UPDATE;

    -- Look-ups by key (OFFSET 0 keeps the planner from turning them round): the view's trigger calls
    -- this once per row, and a scan of all tasks each time would make 3,000 approvals quadratic.
    SELECT * INTO refused FROM (
        SELECT asked.task_id, CASE
            WHEN k.task_id IS NULL THEN 'there is no such task'
            WHEN k.assigned_role <> ALL (teams)
                THEN format('it belongs to %s, and %s is not in that team', k.assigned_role, person)
            WHEN k.status = 'Withdrawn'
                THEN 'it was withdrawn; look for the new task of the same invoice'
            WHEN new_decision IS NULL
                OR new_decision NOT IN ('approved', 'rejected', 'passed', 'failed')
                OR (k.kind LIKE 'quality%') = (new_decision IN ('approved', 'rejected'))
                THEN format('the decision must be %s, not %s',
                    CASE WHEN k.kind LIKE 'quality%' THEN 'passed or failed'
                         ELSE 'approved or rejected' END, coalesce(quote_literal(new_decision), 'empty'))
            WHEN new_decision IN ('rejected', 'failed') AND coalesce(new_note, '') !~ '\S'
                THEN format('%s needs a note that says why', new_decision)
            WHEN i.status <> 'Open' AND k.kind = 'payment_verification'
                THEN format('invoice %s is already %s', i.invoice_number, i.status)
            WHEN k.status = 'Done' AND priced.invoice_number IS NOT NULL
                THEN format('its price is invoiced already (%s)', priced.invoice_number)
            WHEN k.closed_at IS NOT NULL THEN 'it is closed; use its follow-up task'
            WHEN new_decision = 'approved' AND k.status = 'Open' AND k.first_approved_by = person
                THEN format('%s has approved it already, as the first of two: somebody else approves '
                            'it next', person)
            WHEN own.what IS NOT NULL THEN format('%s %s: %s', person, own.what,
                CASE WHEN EXISTS (SELECT FROM prepaid.tasks_nobody_may_decide u WHERE u.task_id = k.task_id)
                     THEN format('nobody in %s may decide it, so add somebody to the team', k.assigned_role)
                     ELSE 'somebody else decides' END)
            WHEN k.kind = 'payment_verification' AND new_decision = 'approved'
                 AND prepaid.payment_stands(k.invoice_id) IS NOT TRUE
                THEN (SELECT format('there is nothing to approve: %s; %s', v.difference, v.what_to_do)
                      FROM prepaid.payment_verifications v
                      WHERE v.task_id = k.task_id AND v.what_to_do IS NOT NULL)
            END AS reason
        FROM unnest(task_ids) asked (task_id)
        LEFT JOIN LATERAL (SELECT * FROM prepaid.tasks
                           WHERE task_id = asked.task_id OFFSET 0) k ON true
        LEFT JOIN LATERAL (SELECT * FROM prepaid.invoices
                           WHERE invoice_id = k.invoice_id OFFSET 0) i ON true
        LEFT JOIN LATERAL (SELECT invoice_number FROM prepaid.invoices
                           WHERE k.kind = 'price_concession' AND service_plan_id = k.service_plan_id
                             AND status <> 'Void' OFFSET 0) priced ON true
        LEFT JOIN LATERAL (SELECT e.what FROM prepaid.four_eyes e
                           WHERE e.task_id = asked.task_id AND e.person = acting_person()
                           LIMIT 1) own ON true
    ) judged
    WHERE reason IS NOT NULL ORDER BY task_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task % cannot be decided: %', refused.task_id, refused.reason;
    END IF;

    WITH decided AS (
        UPDATE prepaid.tasks k
        SET status = CASE WHEN step.is_first THEN 'Open' ELSE 'Done' END,
            decision = CASE WHEN NOT step.is_first THEN new_decision END,
            note = CASE WHEN NOT step.is_first THEN new_note END,
            decided_by = CASE WHEN NOT step.is_first THEN person END,
            decided_at = CASE WHEN NOT step.is_first THEN clock_timestamp() END,
            first_approved_by = CASE WHEN step.is_first THEN person
                                     WHEN new_decision = 'approved' THEN k.first_approved_by END,
            first_approved_at = CASE WHEN step.is_first THEN clock_timestamp()
                                     WHEN new_decision = 'approved' THEN k.first_approved_at END
        FROM (
            SELECT t.task_id, two.needed, two.needed AND t.first_approved_by IS NULL AS is_first
            FROM (SELECT DISTINCT task_id FROM unnest(task_ids) asked (task_id)) asked
            CROSS JOIN LATERAL (SELECT * FROM prepaid.tasks
                                WHERE task_id = asked.task_id OFFSET 0) t
            CROSS JOIN LATERAL (SELECT new_decision = 'approved' AND EXISTS (
                SELECT FROM prepaid.two_person_tasks WHERE task_id = t.task_id OFFSET 0) AS needed) two
        ) step
        WHERE k.task_id = step.task_id
          AND (k.decision, k.note, k.decided_by) IS DISTINCT FROM (new_decision, new_note, person)
          -- Two have approved: a third approval adds nothing.
          AND NOT (k.decision = 'approved' AND new_decision = 'approved'
                   AND (step.needed OR k.first_approved_by IS NOT NULL)) IS TRUE
        RETURNING k.task_id
    )
    INSERT INTO prepaid.sign_offs (task_id, decision, note, decided_by)
    SELECT task_id, new_decision, new_note, person FROM decided ORDER BY task_id;
    GET DIAGNOSTICS recorded = ROW_COUNT;

    IF new_decision = 'rejected' THEN
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT i.service_plan_id, 'payment_rejected',
            format('%s rejected the payment of invoice %s: %s. Clear it up with the customer; '
                   'releasing the hold asks finance again.', person, i.invoice_number, new_note)
        FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'payment_verification'
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT k.service_plan_id, 'price_concession',
            format('%s rejected the price: %s. Change it (prepaid subscriptions change), then release the '
                   'hold, or cancel the plan.', person, new_note)
        FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) AND k.kind = 'price_concession'
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO UPDATE SET text = excluded.text;
    ELSIF new_decision = 'approved' THEN
        -- A later approval of the same task (the second one, where it takes two) replaces the
        -- rejection, and with it the hold.
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = 'approved after all'
        FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'payment_verification' AND k.status = 'Done'
          AND h.service_plan_id = i.service_plan_id AND h.reason_code = 'payment_rejected'
          AND h.released_at IS NULL;
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = 'the price was approved'
        FROM prepaid.tasks k
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'price_concession' AND k.status = 'Done'
          AND h.service_plan_id = k.service_plan_id AND h.reason_code = 'price_concession'
          AND h.released_at IS NULL;
    END IF;
    RETURN recorded;
END $$;

-- The two sign-off tables: updatable views over the tasks, by which people decide in plain SQL.

-- What a finance officer needs to decide: the invoice, the provider's record beside it, and in words
-- what differs. Of a payment in parts the last record is shown, with the amount of all.
-- UPDATE … SET decision = 'approved' | 'rejected', note = '…' WHERE task_id = …
CREATE OR REPLACE VIEW prepaid.payment_verifications AS
SELECT k.task_id, k.status, k.opened_on, i.invoice_number, p.service_plan_id,
       c.customer_ref, p.customer_name, p.plan_name, p.kind, i.currency, i.net, i.tax, i.total, i.payable,
       r.provider AS record_provider, r.provider_ref AS record_ref, r.status AS record_status,
       coalesce(matched.amount, r.amount) AS record_amount, r.currency AS record_currency,
       r.occurred_at AS record_at, coalesce(matched.records, 0) AS matched_records,
       d.difference IS NULL AS agrees, d.difference,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to,
       CASE WHEN i.payable > l.amount THEN 2 ELSE 1 END AS approvals_needed,
       k.first_approved_by, k.first_approved_at,
       coalesce(w.why_not, CASE WHEN n.what_to_do IS NOT NULL THEN 'there is nothing to approve yet' END)
           AS why_not,
       w.why_not IS NULL AND n.what_to_do IS NULL AS may_decide,
       w.why_not IS NULL OR w.is_first AND own.hand IS NULL AS may_reject,
       n.what_to_do
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.service_plans p ON p.service_plan_id = i.service_plan_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
LEFT JOIN LATERAL (
    SELECT count(*) AS records, sum(t.amount) AS amount, max(t.assigned_by) AS assigned_by
    FROM prepaid.transactions t WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched'
    HAVING count(*) > 0
) matched ON true
LEFT JOIN LATERAL (
    SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number, t.amount, t.currency, t.status,
           t.occurred_at, t.customer_ref, t.received_at, t.outcome, t.outcome_reason, t.invoice_id,
           t.decided_at, t.credit_note_id, t.assigned_by, t.assigned_note
    FROM prepaid.transactions t
    WHERE t.invoice_number = i.invoice_number AND matched.records IS NULL
       OR t.invoice_id = i.invoice_id AND t.outcome = 'matched'
    ORDER BY t.status = 'Success' DESC NULLS LAST, t.occurred_at DESC NULLS LAST, t.transaction_id
    LIMIT 1
) r ON true
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN r.transaction_id IS NULL THEN 'no record from a payment provider yet'
        WHEN r.status IS DISTINCT FROM 'Success'
            THEN format('the record says %s', coalesce(r.status, 'nothing'))
        WHEN r.currency IS DISTINCT FROM i.currency
            THEN format('the record is in %s, the invoice in %s', coalesce(r.currency, 'no currency'), i.currency)
        WHEN matched.assigned_by IS NOT NULL
            THEN format('%s was paid and assigned to this invoice by %s', matched.amount, matched.assigned_by)
        WHEN coalesce(matched.amount, r.amount) IS DISTINCT FROM i.payable
            THEN format('the record says %s, the invoice %s', coalesce(r.amount::text, 'nothing'), i.payable)
        WHEN r.customer_ref <> c.customer_ref
            THEN format('the record names customer %s, the invoice %s', r.customer_ref, c.customer_ref)
        WHEN r.outcome <> 'matched' THEN r.outcome_reason
        ELSE (SELECT format('a later record of the same payment says %s', coalesce(t.status, 'nothing'))
              FROM prepaid.transactions m
              JOIN prepaid.transactions t
                  ON hashtextextended(t.provider_ref, 0) = hashtextextended(m.provider_ref, 0)
                 AND t.provider = m.provider AND t.provider_ref = m.provider_ref
              WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched'
                AND t.outcome IS DISTINCT FROM 'superseded' AND t.credit_note_id IS NULL
                AND t.status IS DISTINCT FROM 'Success' AND t.occurred_at >= m.occurred_at
              ORDER BY t.occurred_at DESC LIMIT 1)
    END AS difference
) d
LEFT JOIN prepaid.approval_limits l ON l.currency = i.currency
-- What differs pays nothing, and an approval would have no effect. (What a person has assigned may differ. What
-- fits and is not judged yet may be approved: should it be parked, finance is asked again.)
CROSS JOIN LATERAL (
    SELECT CASE WHEN d.difference IS NULL OR i.status <> 'Open' OR prepaid.payment_stands(i.invoice_id) THEN NULL
        WHEN r.transaction_id IS NULL
            THEN 'wait for the record, or assign a parked one to the invoice (prepaid payments assign)'
        ELSE 'assign records that pay the invoice (prepaid payments assign), or reject the payment'
    END AS what_to_do
) n
CROSS JOIN LATERAL (
    SELECT (SELECT e.what FROM prepaid.four_eyes e
            WHERE e.task_id = k.task_id AND e.person = prepaid.acting_person() LIMIT 1) AS hand OFFSET 0
) own
-- Why the acting person may not approve it, whatever came of the payment; decide_tasks says the same. (The
-- first of two may still reject.)
CROSS JOIN LATERAL (
    SELECT i.status = 'Open' AND k.status = 'Open' AND k.first_approved_by = prepaid.acting_person() AS is_first, CASE
        WHEN i.status <> 'Open' THEN format('invoice %s is already %s', i.invoice_number, i.status)
        WHEN NOT EXISTS (SELECT FROM prepaid.team_members m
                         WHERE m.team = prepaid.team_of('payment_verification')
                           AND m.person = prepaid.acting_person())
            THEN format('only %s decides on payments', k.assigned_role)
        WHEN k.status = 'Open' AND k.first_approved_by = prepaid.acting_person()
            THEN 'you have approved it already, as the first of two'
        WHEN own.hand IS NOT NULL THEN 'you ' || own.hand || CASE WHEN EXISTS (
            SELECT FROM prepaid.tasks_nobody_may_decide u WHERE u.task_id = k.task_id)
            THEN format('; nobody in %s may decide it, so add somebody to the team', k.assigned_role) ELSE '' END
    END AS why_not OFFSET 0
) w
WHERE k.kind = 'payment_verification' AND k.status <> 'Withdrawn';

-- Releases every live hold of a plan under the acting person's name; the plan continues where it stopped.
-- A released rejection opens a new verification task on the same invoice. Not everybody may release holds
-- about money; a payment that was taken back is not made good by releasing. Returns the holds released.
CREATE OR REPLACE FUNCTION prepaid.release_holds(plan bigint, release_note text)
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

-- Sends a failed email to another address: it is written again, as another message. The customer gets
-- that address for later mails too.
CREATE OR REPLACE FUNCTION prepaid.correct_email_address(mail bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_who_says_why('change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not a valid email address', address;
    END IF;
    -- Of an unknown one a copy may be where it was sent: it stays the mail that it is.
    PERFORM prepaid.require_emails(ARRAY[mail], ARRAY['failed'], 'go to another address');
    IF EXISTS (SELECT FROM prepaid.emails WHERE email_id = mail AND service_plan_id IS NULL) THEN
        RAISE EXCEPTION 'email % is to one of our own staff: their address is changed with prepaid user add',
            mail;
    END IF;
    UPDATE prepaid.emails
    SET status = 'pending', attempts = 0, next_attempt_at = clock_timestamp(), deferred_since = NULL,
        recipient = address, corrections = corrections + 1, message_id = NULL, content = NULL
    WHERE email_id = mail;
    UPDATE prepaid.customers c SET email = address
    FROM prepaid.emails e JOIN prepaid.service_plans p USING (service_plan_id)
    WHERE e.email_id = mail AND c.customer_id = p.customer_id AND c.email IS DISTINCT FROM address;
    PERFORM prepaid.withdraw_own_approvals_of(p.customer_id)
    FROM prepaid.emails e JOIN prepaid.service_plans p USING (service_plan_id) WHERE e.email_id = mail;
END $$;

-- Leaving: at the end of the term, or at once with credit for the days that are not used.

-- What comes before plans are cancelled that were never activated (check_plan_transition refuses it
-- otherwise): they leave the queue, nobody is asked to pay or to verify any more, money that has arrived
-- for them goes to finance as a task, their holds end, and what a change of plan changed is taken back.
CREATE OR REPLACE FUNCTION prepaid.close_waiting_plans(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- The plan before its place in the queue, as the steps do.
    PERFORM FROM prepaid.service_plans p WHERE p.service_plan_id = ANY (plans)
    ORDER BY p.service_plan_id FOR NO KEY UPDATE;
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = ANY (plans);
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = ANY (plans) AND kind = 'price_concession' AND status = 'Open';
    PERFORM prepaid.void_open_invoices(plans);
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = ANY (plans) AND released_at IS NULL;
    PERFORM prepaid.take_back_change(p.service_plan_id) FROM prepaid.service_plans p
    WHERE p.service_plan_id = ANY (plans) AND p.kind = 'change';
END $$;

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

-- Gives the customer of a plan an address, for the person who is acting: what a plan that is held for want of one needs. Plans whose details were taken before keep theirs.
CREATE OR REPLACE FUNCTION prepaid.set_customer_email(plan bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_who_says_why('change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not a valid email address', address;
    END IF;
    UPDATE prepaid.customers c SET email = address
    FROM prepaid.service_plans p WHERE p.service_plan_id = plan AND c.customer_id = p.customer_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service plan %', plan;
    END IF;
    PERFORM prepaid.withdraw_own_approvals_of(p.customer_id)
    FROM prepaid.service_plans p WHERE p.service_plan_id = plan;
END $$;

GRANT SELECT, UPDATE (decision, note) ON prepaid.price_concessions TO finance;
-- Of the new ones only: the rights of the others stay.
GRANT SELECT ON prepaid.master_data_in_force, prepaid.tasks_nobody_may_decide, prepaid.own_approvals,
    prepaid.approvals_without_payment, prepaid.terms_below_list, prepaid.unapproved_concessions,
    prepaid.price_concessions TO engineering;
