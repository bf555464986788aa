-- The state machines. Whatever is not written here is refused, whoever asks.

CREATE FUNCTION prepaid.check_plan_opening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'service plan of subscription % cannot start as %: the pipeline opens plans as Pending',
        NEW.subscription_id, NEW.status;
END $$;
CREATE TRIGGER check_plan_opening BEFORE INSERT ON prepaid.service_plans
    FOR EACH ROW WHEN (NEW.origin = 'pipeline' AND NEW.status <> 'Pending')
    EXECUTE FUNCTION prepaid.check_plan_opening();

CREATE FUNCTION prepaid.check_plan_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'Pending' AND NEW.status = 'Processing' AND NEW.invoiced_at IS NULL
        OR OLD.status = 'Processing' AND NEW.status = 'Pending'
        OR OLD.status = 'Active' AND NEW.status = 'Expired'
        OR OLD.status IN ('Pending', 'Processing', 'Active') AND NEW.status = 'Cancelled'
    THEN
        RETURN NEW;
    END IF;
    IF OLD.status = 'Pending' AND NEW.status = 'Active' THEN
        IF EXISTS (SELECT FROM prepaid.invoices i
                   WHERE i.service_plan_id = NEW.service_plan_id AND i.status = 'Paid') THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'service plan % cannot become Active: it has no paid invoice',
            NEW.service_plan_id;
    END IF;
    RAISE EXCEPTION 'service plan % cannot go from % to %', NEW.service_plan_id, OLD.status, NEW.status;
END $$;
CREATE TRIGGER check_plan_transition BEFORE UPDATE ON prepaid.service_plans
    FOR EACH ROW WHEN (OLD.status <> NEW.status)
    EXECUTE FUNCTION prepaid.check_plan_transition();

-- A plan that is cancelled before activation takes what hangs on it along: nobody is asked to pay or
-- to verify any more, and money that has arrived for it goes to finance as a task.
CREATE FUNCTION prepaid.close_cancelled_plan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = NEW.service_plan_id;
    PERFORM prepaid.void_open_invoice(NEW.service_plan_id);
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = NEW.service_plan_id AND released_at IS NULL;
    IF NEW.kind = 'change' THEN
        PERFORM prepaid.take_back_change(NEW.service_plan_id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER close_cancelled_plan AFTER UPDATE ON prepaid.service_plans
    FOR EACH ROW WHEN (OLD.status IN ('Pending', 'Processing') AND NEW.status = 'Cancelled')
    EXECUTE FUNCTION prepaid.close_cancelled_plan();

CREATE FUNCTION prepaid.check_invoice_transition() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER check_invoice_transition BEFORE UPDATE ON prepaid.invoices
    FOR EACH ROW WHEN (OLD.status <> NEW.status)
    EXECUTE FUNCTION prepaid.check_invoice_transition();
-- An invoice is a document: after issue its parties and amounts stay. Corrections are new documents.
CREATE FUNCTION prepaid.refuse_invoice_edit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'invoice % is issued: number, plan, customer, amounts and date stay as they are',
        OLD.invoice_number;
END $$;
CREATE TRIGGER refuse_invoice_edit BEFORE UPDATE ON prepaid.invoices
    FOR EACH ROW WHEN ((OLD.invoice_number, OLD.service_plan_id, OLD.customer_id, OLD.currency,
                        OLD.net, OLD.tax, OLD.total, OLD.credit, OLD.issued_on)
        IS DISTINCT FROM (NEW.invoice_number, NEW.service_plan_id, NEW.customer_id, NEW.currency,
                          NEW.net, NEW.tax, NEW.total, NEW.credit, NEW.issued_on))
    EXECUTE FUNCTION prepaid.refuse_invoice_edit();
CREATE TRIGGER invoices_stay BEFORE DELETE OR TRUNCATE ON prepaid.invoices
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
CREATE TRIGGER invoice_lines_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.invoice_lines
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
CREATE TRIGGER credit_notes_stay BEFORE DELETE OR TRUNCATE ON prepaid.credit_notes
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
CREATE TRIGGER credit_note_lines_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.credit_note_lines
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
