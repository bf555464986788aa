-- Who may not decide alone, or not at all: the limits above which two approve, and four eyes.

-- Above this amount two different people of finance approve a payment, a refund or what a term costs less
-- than by list; a currency that is not here needs one. 'prepaid migrate' writes it from PREPAID_SECOND_APPROVAL_ABOVE.
CREATE TABLE prepaid.approval_limits (
    currency text PRIMARY KEY REFERENCES prepaid.currencies,
    amount numeric NOT NULL CHECK (amount >= 0 AND amount < 'Infinity')
);
CREATE FUNCTION prepaid.audit_approval_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log (event, entity, before, after, detail, actor, run_id, as_of)
    VALUES ('approval_limit_changed', 'approval_limit', OLD.amount, NEW.amount,
            coalesce(NEW.currency, OLD.currency), prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    RETURN NULL;
END $$;
CREATE TRIGGER audit_approval_limit AFTER INSERT OR UPDATE OR DELETE ON prepaid.approval_limits
    FOR EACH ROW EXECUTE FUNCTION prepaid.audit_approval_limit();

-- Which tasks need two people, as the limits are now.
CREATE VIEW prepaid.two_person_tasks AS
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

-- Whoever writes, and whatever way: above the limit there is no approval by one alone.
CREATE FUNCTION prepaid.require_two_people() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Without a limit, as in most installations, thousands of rows ask nothing more than that.
    IF EXISTS (SELECT FROM prepaid.approval_limits)
       AND EXISTS (SELECT FROM prepaid.two_person_tasks two WHERE two.task_id = NEW.task_id) THEN
        RAISE EXCEPTION 'task % needs the approval of two people', NEW.task_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER require_two_people BEFORE UPDATE ON prepaid.tasks
    FOR EACH ROW WHEN (NEW.decision = 'approved' AND OLD.decision IS DISTINCT FROM 'approved'
                       AND NEW.first_approved_by IS NULL)
    EXECUTE FUNCTION prepaid.require_two_people();

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
CREATE VIEW prepaid.four_eyes AS
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
