-- A customer's personal data is erased on request: names, addresses and what people wrote about them.
-- Amounts, dates, the country that the tax is of and the audit log stay, as the law asks of invoices.

CREATE TABLE prepaid.erasures (
    customer_id bigint PRIMARY KEY REFERENCES prepaid.customers,
    reason text NOT NULL CHECK (reason ~ '\S'),
    erased_by text NOT NULL,
    erased_on date NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER erasures_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.erasures
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

-- The payment records that are about a customer: of their invoices, or under their reference.
CREATE FUNCTION prepaid.records_of(customer bigint) RETURNS TABLE (transaction_id bigint)
LANGUAGE sql STABLE AS $$
    SELECT t.transaction_id FROM prepaid.invoices i
    JOIN prepaid.transactions t ON t.invoice_id = i.invoice_id WHERE i.customer_id = customer
    UNION
    SELECT t.transaction_id FROM prepaid.invoices i
    JOIN prepaid.transactions t ON t.invoice_number = i.invoice_number WHERE i.customer_id = customer
    UNION
    SELECT t.transaction_id FROM prepaid.customers c
    JOIN prepaid.transactions t ON t.customer_ref = c.customer_ref WHERE c.customer_id = customer
$$;

-- Why a customer cannot be erased yet; null: nothing is in the way.
CREATE FUNCTION prepaid.erasure_refusal(customer bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT reason FROM (
        SELECT 1 AS place, format('was already erased on %s by %s', e.erased_on, e.erased_by) AS reason
        FROM prepaid.erasures e WHERE e.customer_id = customer
        UNION ALL
        SELECT 2, format('service plan %s is %s: cancel it, or wait until it has ended',
                         p.service_plan_id, p.status)
        FROM prepaid.service_plans p
        WHERE p.customer_id = customer AND p.status IN ('Pending', 'Processing', 'Active')
        UNION ALL
        SELECT 3, format('subscription %s continues: cancel it first', s.subscription_ref)
        FROM prepaid.subscriptions s
        WHERE s.customer_id = customer AND (s.cancelled_on IS NULL OR s.cancelled_on > prepaid.today())
          AND (s.auto_renew OR NOT EXISTS (SELECT FROM prepaid.service_plans p
                                           WHERE p.subscription_id = s.subscription_id))
        UNION ALL
        SELECT 4, format('invoice %s is open: it has to be paid or voided', i.invoice_number)
        FROM prepaid.invoices i WHERE i.customer_id = customer AND i.status = 'Open'
        UNION ALL
        SELECT 5, format('task %s (%s) is open: decide it first', k.task_id, k.kind)
        FROM prepaid.tasks k
        WHERE k.status = 'Open' AND (
            k.service_plan_id IN (SELECT service_plan_id FROM prepaid.service_plans
                                  WHERE customer_id = customer)
            OR k.invoice_id IN (SELECT invoice_id FROM prepaid.invoices WHERE customer_id = customer)
            OR k.transaction_id IN (SELECT transaction_id FROM prepaid.records_of(customer)))
        UNION ALL
        SELECT 6, format('service plan %s is held (%s): release it first', h.service_plan_id, h.reason_code)
        FROM prepaid.holds h JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE p.customer_id = customer AND h.released_at IS NULL
        UNION ALL
        SELECT 7, format('email %s is %s: it has to arrive first', m.email_id, m.status)
        FROM prepaid.emails m JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE p.customer_id = customer AND m.status IN ('pending', 'sending', 'unknown')
        UNION ALL
        SELECT 8, format('payment record %s is not judged yet', t.transaction_id)
        FROM prepaid.transactions t
        WHERE t.transaction_id IN (SELECT transaction_id FROM prepaid.records_of(customer))
          AND (t.outcome IS NULL OR t.outcome = 'waiting')
    ) refusals ORDER BY place, reason LIMIT 1
$$;

-- Of rows that are only ever added people's words can be erased, and nothing else.
CREATE FUNCTION prepaid.only_erase_notes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- (A generated column is not computed yet in a BEFORE trigger.)
    IF NEW.note = '(erased)' AND OLD.note IS NOT NULL
       AND to_jsonb(NEW) - ARRAY['note', 'refund'] = to_jsonb(OLD) - ARRAY['note', 'refund'] THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
END $$;
CREATE TRIGGER sign_offs_notes BEFORE UPDATE ON prepaid.sign_offs
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER sign_offs_notes;
CREATE TRIGGER task_assignments_notes BEFORE UPDATE ON prepaid.task_assignments
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();
CREATE TRIGGER requests_notes BEFORE UPDATE ON prepaid.requests
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();
CREATE TRIGGER credit_notes_notes BEFORE UPDATE ON prepaid.credit_notes
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();

-- Erases a customer for the acting person; all or nothing. Returns the Message-IDs of the mails whose
-- bytes are gone: where they were written as files, those are the caller's to delete.
CREATE FUNCTION prepaid.erase_customer(ref text, why text)
RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('erase a customer', why);
    customer bigint;
    refusal text;
    plan_ids bigint[];
    record_ids bigint[];
    task_ids bigint[];
    message_ids text[];
BEGIN
    SELECT c.customer_id INTO customer FROM customers c WHERE c.customer_ref = ref FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no customer %', ref;
    END IF;
    -- No term is opened meanwhile.
    PERFORM FROM subscriptions s WHERE s.customer_id = customer ORDER BY s.subscription_id FOR UPDATE;
    refusal := erasure_refusal(customer);
    IF refusal IS NOT NULL THEN
        RAISE EXCEPTION 'customer % cannot be erased: %', ref, refusal;
    END IF;
    plan_ids := ARRAY(SELECT p.service_plan_id FROM service_plans p WHERE p.customer_id = customer);
    record_ids := ARRAY(SELECT r.transaction_id FROM records_of(customer) r);
    task_ids := ARRAY(SELECT k.task_id FROM tasks k WHERE k.service_plan_id = ANY (plan_ids)
                      OR k.transaction_id = ANY (record_ids));
    INSERT INTO erasures (customer_id, reason, erased_by, erased_on)
    VALUES (customer, why, person, prepaid.today());

    UPDATE customers c SET name = 'erased customer ' || customer, email = NULL
    WHERE c.customer_id = customer;
    UPDATE service_plans p SET email = NULL,
        customer_name = CASE WHEN p.customer_name IS NOT NULL THEN 'erased customer ' || customer END
    WHERE p.service_plan_id = ANY (plan_ids);
    WITH erased AS (
        UPDATE emails m SET recipient = 'erased@invalid',
            content = CASE WHEN m.content IS NOT NULL THEN ''::bytea END,
            -- One that failed is not sent again.
            status = CASE m.status WHEN 'failed' THEN 'dropped' ELSE m.status END,
            last_error = CASE m.status WHEN 'failed' THEN 'the customer was erased' END
        WHERE m.service_plan_id = ANY (plan_ids)
        RETURNING m.message_id
    )
    SELECT coalesce(array_agg(e.message_id) FILTER (WHERE e.message_id IS NOT NULL), '{}')
    INTO message_ids FROM erased e;
    -- Null and not a word: a later record of the same payment is judged with these.
    UPDATE transactions t
    SET customer_ref = CASE WHEN t.customer_ref = ref THEN ref END,
        invoice_number = CASE WHEN EXISTS (SELECT FROM invoices i WHERE i.invoice_number = t.invoice_number)
                              THEN t.invoice_number END,
        assigned_note = CASE WHEN t.assigned_note IS NOT NULL THEN '(erased)' END,
        outcome_reason = CASE WHEN t.outcome_reason IS NOT NULL THEN '(erased)' END
    WHERE t.transaction_id = ANY (record_ids);
    UPDATE holds h SET text = '(erased)', note = CASE WHEN h.note IS NOT NULL THEN '(erased)' END
    WHERE h.service_plan_id = ANY (plan_ids);
    UPDATE tasks k SET note = '(erased)' WHERE k.task_id = ANY (task_ids) AND k.note IS NOT NULL;
    UPDATE sign_offs s SET note = '(erased)' WHERE s.task_id = ANY (task_ids) AND s.note IS NOT NULL;
    UPDATE task_assignments a SET note = '(erased)'
    WHERE a.task_id = ANY (task_ids) AND a.note IS NOT NULL;
    UPDATE requests q SET note = '(erased)'
    WHERE q.subscription_id IN (SELECT s.subscription_id FROM subscriptions s
                                WHERE s.customer_id = customer);
    UPDATE credit_notes n SET note = '(erased)' WHERE n.customer_id = customer AND n.note IS NOT NULL;

    INSERT INTO audit_log (event, entity, entity_id, after, actor, run_id, as_of)
    VALUES ('customer_erased', 'customer', customer, 'erased', person, prepaid.run_id(), prepaid.as_of());
    RETURN message_ids;
END $$;
