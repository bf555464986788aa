-- How people decide: one function, and over it the two sign-off tables (updatable views).

-- Four eyes: who may not decide on which task of money, and why. Who opened or changed the plan, its
-- invoice or its payment, and who last changed the data of the customer or the subscription; the audit
-- log knows them. An import is nobody's. (The hold of a rejection that is released while its task
-- stands was released by deciding.)
CREATE VIEW prepaid.four_eyes AS
SELECT k.task_id, hand.person, hand.what
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
               ELSE 'cancelled the plan' END AS what
    FROM prepaid.audit_log a
    WHERE a.service_plan_id = k.service_plan_id
      AND a.event IN ('hold_released', 'transaction_assigned', 'change_requested',
                      'cancellation_requested', 'invoice_void_requested', 'invoice_reissue_requested',
                      'service_plan_cancelled', 'term_cut', 'invoice_void', 'credit_note_issued')
      AND NOT (a.event = 'hold_released' AND a.before = 'payment_rejected' AND a.at > k.opened_at)
    UNION ALL
    SELECT last.actor, 'last changed the customer''s data'
    FROM (SELECT a.actor FROM prepaid.audit_log a
          WHERE a.service_plan_id IS NULL AND a.entity = 'customer' AND a.entity_id = p.customer_id
          ORDER BY a.audit_id DESC LIMIT 1) last
    UNION ALL
    SELECT last.actor, 'last changed the subscription'
    FROM (SELECT a.actor FROM prepaid.audit_log a
          WHERE a.service_plan_id IS NULL AND a.entity = 'subscription'
            AND a.entity_id = p.subscription_id
          ORDER BY a.audit_id DESC LIMIT 1) last
    UNION ALL
    SELECT last.actor, 'last changed a discount of the subscription'
    FROM prepaid.discounts d
    CROSS JOIN LATERAL (SELECT a.actor FROM prepaid.audit_log a
          WHERE a.service_plan_id IS NULL AND a.entity = 'discount' AND a.entity_id = d.discount_id
          ORDER BY a.audit_id DESC LIMIT 1) last
    WHERE d.subscription_id = p.subscription_id
) hand
WHERE k.kind IN ('payment_verification', 'payment_refund');

-- Decides tasks for the person who is acting (the role that is set, or the session's user).
-- All or nothing. Returns how many decisions were recorded; the same decision again is not one. Above
-- the limit the first approval leaves the task Open; a rejection needs one person.
CREATE FUNCTION prepaid.decide_tasks(task_ids bigint[], new_decision text, new_note text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp
-- All look-ups are by key, so one plan is right for 1 task and for 3,000; planning anew cost as much.
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
                OR (k.kind LIKE 'payment%') <> (new_decision IN ('approved', 'rejected'))
                THEN format('the decision must be %s, not %s',
                    CASE WHEN k.kind LIKE 'payment%' THEN 'approved or rejected'
                         ELSE 'passed or failed' END, coalesce(quote_literal(new_decision), 'empty'))
            WHEN new_decision IN ('rejected', 'failed') AND coalesce(new_note, '') !~ '\S'
                THEN format('%s needs a note that says why', new_decision)
            WHEN i.status <> 'Open' AND k.kind = 'payment_verification'
                THEN format('invoice %s is already %s', i.invoice_number, i.status)
            WHEN k.closed_at IS NOT NULL THEN 'it is closed; use its follow-up task'
            WHEN new_decision = 'approved' AND k.status = 'Open' AND k.first_approved_by = person
                THEN format('%s has approved it already, as the first of two: somebody else approves '
                            'it next', person)
            WHEN own.what IS NOT NULL THEN format('%s %s: somebody else decides', person, own.what)
            END AS reason
        FROM unnest(task_ids) asked (task_id)
        LEFT JOIN LATERAL (SELECT * FROM prepaid.tasks
                           WHERE task_id = asked.task_id OFFSET 0) k ON true
        LEFT JOIN LATERAL (SELECT * FROM prepaid.invoices
                           WHERE invoice_id = k.invoice_id OFFSET 0) i ON true
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
    ELSIF new_decision = 'approved' THEN
        -- A later approval of the same task (the second one, where it takes two) replaces the
        -- rejection, and with it the hold.
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = 'approved after all'
        FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'payment_verification' AND k.status = 'Done'
          AND h.service_plan_id = i.service_plan_id AND h.reason_code = 'payment_rejected'
          AND h.released_at IS NULL;
    END IF;
    RETURN recorded;
END $$;

-- Releases every live hold of a plan under the acting person's name; the plan goes on where it was.
-- A released rejection opens a new verification task on the same invoice. Holds about money are for
-- finance; a payment that was taken back is not made good by releasing. Returns the holds released.
CREATE FUNCTION prepaid.release_holds(plan bigint, release_note text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    released integer;
    rejected boolean;
    reversed boolean;
    money text;
    unpaid text;
BEGIN
    IF NOT prepaid.is_in_team(person, 'finance', 'customer_success', 'engineering') THEN
        RAISE EXCEPTION '% may not release holds: not in finance, customer_success or engineering', person;
    END IF;
    IF coalesce(release_note, '') !~ '\S' THEN
        RAISE EXCEPTION 'releasing a hold needs a note that says what was done';
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    -- What was released is asked of the release itself: a rejection at this very moment is either
    -- among it or stays a hold.
    WITH freed AS (
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = release_note
        WHERE h.service_plan_id = plan AND h.released_at IS NULL
        RETURNING h.reason_code
    )
    SELECT count(*), bool_or(reason_code = 'payment_rejected'), bool_or(reason_code = 'payment_reversed'),
           string_agg(reason_code, ', ' ORDER BY reason_code) FILTER (WHERE reason_code IN (
               'payment_rejected', 'payment_reversed', 'payment_mismatch', 'change_paid_late',
               'credit_not_paid', 'credit_differs', 'invoice_voided'))
    INTO released, rejected, reversed, money FROM freed;
    IF released = 0 THEN
        RAISE EXCEPTION 'service plan % is not held', plan;
    END IF;
    IF money IS NOT NULL AND NOT prepaid.is_in_team(person, 'finance') THEN
        RAISE EXCEPTION '% may not release %: it is about money, only finance can', person, money;
    END IF;
    SELECT i.invoice_number INTO unpaid FROM prepaid.invoices i
    WHERE i.service_plan_id = plan AND i.status = 'Open' AND reversed;
    IF FOUND THEN
        RAISE EXCEPTION 'the payment of invoice % was taken back, releasing does not pay it: the hold ends '
            'with a payment that stands, with cancelling the plan at once, or, when the term is over, with '
            'voiding the invoice', unpaid;
    END IF;
    IF rejected THEN
        UPDATE prepaid.tasks k SET status = 'Withdrawn'
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND k.invoice_id = i.invoice_id
          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
          AND k.decision IS DISTINCT FROM 'approved';
        INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on)
        SELECT 'payment_verification', plan, i.invoice_id, 'finance',
               prepaid.today()
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND i.payable > 0
          AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn');
    END IF;
    RETURN released;
END $$;

-- What a finance officer needs to decide: the invoice, the provider's record beside it, and in words
-- what differs. Of a payment in parts the last record is shown, with the amount of all.
-- UPDATE … SET decision = 'approved' | 'rejected', note = '…' WHERE task_id = …
CREATE VIEW prepaid.payment_verifications AS
SELECT k.task_id, k.status, k.opened_on, i.invoice_number, p.service_plan_id,
       c.customer_ref, p.customer_name, p.plan_name, p.kind, i.currency, i.net, i.tax, i.total, i.payable,
       r.provider AS record_provider, r.provider_ref AS record_ref, r.status AS record_status,
       coalesce(matched.amount, r.amount) AS record_amount, r.currency AS record_currency,
       r.occurred_at AS record_at, coalesce(matched.records, 0) AS matched_records,
       d.difference IS NULL AS agrees, d.difference,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to,
       CASE WHEN i.payable > l.amount THEN 2 ELSE 1 END AS approvals_needed,
       k.first_approved_by, k.first_approved_at, w.why_not, w.why_not IS NULL AS may_decide
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
    SELECT t.* FROM prepaid.transactions t
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
            THEN format('the record is over %s, the invoice over %s', coalesce(r.amount::text, 'nothing'), i.payable)
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
-- Why the acting person may not approve it; decide_tasks says the same. (The first of two may still
-- reject.)
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN i.status <> 'Open' THEN format('invoice %s is already %s', i.invoice_number, i.status)
        WHEN NOT EXISTS (SELECT FROM prepaid.team_members m
                         WHERE m.team = 'finance' AND m.person = prepaid.acting_person())
            THEN 'only finance decides on payments'
        WHEN k.status = 'Open' AND k.first_approved_by = prepaid.acting_person()
            THEN 'you have approved it already, as the first of two'
        ELSE (SELECT 'you ' || e.what FROM prepaid.four_eyes e
              WHERE e.task_id = k.task_id AND e.person = prepaid.acting_person() LIMIT 1)
    END AS why_not OFFSET 0
) w
WHERE k.kind = 'payment_verification' AND k.status <> 'Withdrawn';

-- Which open invoices a parked payment may be meant for. A help for finance; nothing acts on it. By the
-- customer or by the number: never by the amount alone, which many invoices share. (NOT MATERIALIZED: who
-- asks about some records does not wait for the others.)
CREATE VIEW prepaid.payment_suggestions AS
WITH parked AS NOT MATERIALIZED (
    SELECT t.* FROM prepaid.tasks k JOIN prepaid.transactions t USING (transaction_id)
    WHERE k.kind = 'payment_review' AND k.status = 'Open' AND t.outcome = 'parked'
      AND t.status = 'Success'
), candidates AS (
    SELECT t.transaction_id, i.invoice_id, NULL AS slip
    FROM parked t
    JOIN prepaid.customers c USING (customer_ref)
    JOIN prepaid.invoices i ON i.customer_id = c.customer_id AND i.status = 'Open'
    UNION ALL
    SELECT t.transaction_id, i.invoice_id, meant.slip
    FROM parked t
    CROSS JOIN LATERAL prepaid.meant_numbers(t.invoice_number) meant
    JOIN prepaid.invoices i ON prepaid.plain_number(i.invoice_number) = meant.plain AND i.status = 'Open'
)
SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number AS record_invoice_number,
       t.amount, t.currency, t.customer_ref AS record_customer_ref, t.occurred_at, t.outcome_reason,
       i.invoice_number, i.service_plan_id, c.customer_ref, c.name AS customer_name, i.issued_on,
       concat_ws('; ', 'same amount', CASE WHEN t.customer_ref = c.customer_ref THEN 'same customer' END,
                 'the number: ' || found.slip) AS because
FROM (SELECT transaction_id, invoice_id, max(slip) AS slip FROM candidates GROUP BY 1, 2) found
JOIN parked t USING (transaction_id)
JOIN prepaid.invoices i ON i.invoice_id = found.invoice_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
WHERE i.payable = t.amount AND i.currency = t.currency
  AND i.invoice_number IS DISTINCT FROM t.invoice_number
  AND NOT EXISTS (SELECT FROM prepaid.transactions m
                  WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched');

-- What customer success needs: the plan's features to look at.
-- UPDATE … SET decision = 'passed' | 'failed', note = '…' WHERE task_id = …
CREATE VIEW prepaid.quality_checks AS
SELECT k.task_id, k.kind, k.status, k.opened_on, p.service_plan_id, c.customer_ref, p.customer_name,
       p.plan_name, p.start_date, p.end_date,
       concat_ws(', ', CASE WHEN p.quantity > 1 THEN p.quantity || ' × ' ELSE '' END || p.plan_name, (
           SELECT string_agg(CASE WHEN (a ->> 'quantity')::integer > 1
                                  THEN a ->> 'quantity' || ' × ' ELSE '' END || (a ->> 'name'),
                             ', ' ORDER BY n)
           FROM jsonb_array_elements(p.addons) WITH ORDINALITY e (a, n))) AS features,
       earlier.note AS what_failed,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to
FROM prepaid.tasks k
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.tasks earlier ON earlier.task_id = k.parent_task_id
WHERE k.kind IN ('quality_check', 'quality_follow_up') AND k.status <> 'Withdrawn';

CREATE FUNCTION prepaid.decide_from_view() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) - 'decision' - 'note' <> to_jsonb(OLD) - 'decision' - 'note' THEN
        RAISE EXCEPTION 'only decision and note can be set in %', TG_TABLE_NAME;
    END IF;
    PERFORM prepaid.decide_tasks(ARRAY[OLD.task_id], NEW.decision, NEW.note);
    RETURN NEW;
END $$;
CREATE TRIGGER decide INSTEAD OF UPDATE ON prepaid.payment_verifications
    FOR EACH ROW EXECUTE FUNCTION prepaid.decide_from_view();
CREATE TRIGGER decide INSTEAD OF UPDATE ON prepaid.quality_checks
    FOR EACH ROW EXECUTE FUNCTION prepaid.decide_from_view();
