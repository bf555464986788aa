-- The two sign-off tables: updatable views over the tasks, by which people decide in plain SQL.

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
                AND t.status IS DISTINCT FROM 'Success'
                AND (t.outcome = 'parked' OR t.occurred_at >= m.occurred_at)
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
