-- The state machine of invoices. Whatever is not written here is refused, whoever asks; so is any
-- edit of what was issued.

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
