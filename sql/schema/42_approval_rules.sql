-- Who may not decide alone, or not at all: the limits above which two approve, and four eyes.

-- Above this amount two different people of finance approve a payment or a refund; a currency that is
-- not here needs one. 'prepaid migrate' writes it from PREPAID_SECOND_APPROVAL_ABOVE.
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
WHERE k.kind = 'payment_refund';

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
