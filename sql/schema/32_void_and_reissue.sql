-- Void and reissue: a number that was given stays, the plan goes back to before step 1.

-- Voids the open invoices of plans with what hangs on them: nobody is asked to pay or to verify any
-- more, and money that was matched to them goes to finance as a task.
CREATE FUNCTION prepaid.void_open_invoices(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = ANY (plans) AND kind = 'payment_verification' AND status = 'Open';
    -- Money of a paid invoice that was credited is paid back by the credit note's own task.
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on, due_on)
    SELECT 'payment_review', i.service_plan_id, i.invoice_id, t.transaction_id,
           prepaid.team_of('payment_review'), prepaid.today(), prepaid.task_due_on(prepaid.today())
    FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
    -- Void ones have no matched record. Saying so finds the invoice by its index; reading 40,000 of
    -- them cost 34 ms for each plan.
    WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void' AND t.outcome = 'matched'
      AND NOT EXISTS (SELECT FROM prepaid.credit_notes n WHERE n.service_plan_id = i.service_plan_id)
    ORDER BY i.service_plan_id, t.transaction_id
    ON CONFLICT DO NOTHING;
    -- In the words of match_payments for a record that comes only now.
    UPDATE prepaid.transactions t
    SET outcome = 'parked', outcome_reason = format('invoice %s is void', i.invoice_number)
    FROM prepaid.invoices i
    WHERE i.service_plan_id = ANY (plans) AND i.status = 'Open'
      AND t.invoice_id = i.invoice_id AND t.outcome = 'matched';
    -- Nobody is asked any more why a payment of it has failed.
    UPDATE prepaid.tasks k SET status = 'Withdrawn'
    FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
    WHERE i.service_plan_id = ANY (plans) AND i.status = 'Open'
      AND t.outcome = 'parked' AND prepaid.record_status(t.status) = 'Failed'
      AND k.transaction_id = t.transaction_id AND k.kind = 'payment_review' AND k.status = 'Open';
    UPDATE prepaid.transactions t
    SET outcome = 'superseded', outcome_reason = format('invoice %s is void', i.invoice_number)
    FROM prepaid.invoices i
    WHERE i.service_plan_id = ANY (plans) AND i.status = 'Open' AND t.invoice_id = i.invoice_id
      AND t.outcome = 'parked' AND prepaid.record_status(t.status) = 'Failed';
    -- The record is free: a person may assign it to another invoice.
    UPDATE prepaid.invoices SET status = 'Void', transaction_id = NULL
    WHERE service_plan_id = ANY (plans) AND status = 'Open';
END $$;

-- Voids an open invoice for the finance officer who is acting. With reissue the next run issues a new
-- one from what the subscription has then; without, the plan is held until somebody decides. The invoice
-- of a plan that is over (its payment was taken back) is not collectible; the plan stays as it is.
-- Returns the plan.
CREATE FUNCTION prepaid.void_invoice(number text, reissue boolean, why text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('void invoices', why);
    i record;
    p record;
    over boolean;
BEGIN
    PERFORM take_lock('payment matching');
    SELECT plan.* INTO p FROM prepaid.service_plans plan JOIN prepaid.invoices USING (service_plan_id)
    WHERE invoice_number = number FOR NO KEY UPDATE OF plan;
    -- The invoice as it is now that the plan is ours: a step may have paid it while we waited.
    SELECT * INTO i FROM prepaid.invoices WHERE invoice_number = number;
    over := p.status IN ('Expired', 'Cancelled');
    IF i.invoice_id IS NULL THEN
        RAISE EXCEPTION 'there is no invoice %', number;
    ELSIF i.status <> 'Open' THEN
        RAISE EXCEPTION 'invoice % is %: only an open one can be voided%', number, i.status,
            CASE i.status WHEN 'Paid' THEN '; a paid one is credited by cancelling its plan' ELSE '' END;
    ELSIF p.status = 'Active' THEN
        RAISE EXCEPTION 'service plan % of invoice % is active, although its payment was reversed: %',
            p.service_plan_id, number, CASE WHEN p.full_end_date IS NULL
                THEN 'cancel it at once, that voids the invoice'
                ELSE format('void it when the term has ended, on %s', p.end_date) END;
    ELSIF reissue AND over THEN
        RAISE EXCEPTION 'service plan % of invoice % is %: its invoice can be voided, not reissued',
            p.service_plan_id, number, p.status;
    END IF;
    PERFORM prepaid.lock_tasks_of(p.customer_id);
    PERFORM prepaid.void_open_invoices(ARRAY[p.service_plan_id]);
    -- What was doubtful about the payment was about this invoice.
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = person, note = why
    WHERE service_plan_id = p.service_plan_id AND released_at IS NULL
      AND reason_code IN (SELECT r.reason_code FROM prepaid.hold_reasons r WHERE r.about_invoice);
    -- A term that is over stays as it was: what was taken back is not collectible.
    IF NOT over THEN
        DELETE FROM prepaid.charges WHERE service_plan_id = p.service_plan_id;
    END IF;
    -- An order keeps the price that was agreed; all else is taken again from the subscription.
    UPDATE prepaid.service_plans
    SET status = 'Pending', invoiced_at = NULL, retrieved_at = NULL,
        price = CASE WHEN opened_on IS NULL THEN price END
    WHERE service_plan_id = p.service_plan_id AND NOT over;
    -- A worker that has the plan in hand finds it gone from its batch.
    IF over THEN
        DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = p.service_plan_id;
    ELSE
        UPDATE prepaid.unsettled_plans SET batch_id = NULL WHERE service_plan_id = p.service_plan_id;
    END IF;
    IF NOT reissue AND NOT over THEN
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT p.service_plan_id, 'invoice_voided', format(
            '%s voided invoice %s: %s. Release the hold and a new invoice is issued, or cancel the plan.',
            person, number, why)
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
    END IF;
    INSERT INTO prepaid.requests
        (kind, subscription_id, service_plan_id, invoice_id, asked_on, note, asked_by)
    VALUES (CASE WHEN reissue THEN 'invoice_reissue' ELSE 'invoice_void' END, p.subscription_id,
            p.service_plan_id, i.invoice_id, prepaid.today(), why, person);
    PERFORM prepaid.withdraw_own_approvals_of(p.customer_id);
    RETURN p.service_plan_id;
END $$;
