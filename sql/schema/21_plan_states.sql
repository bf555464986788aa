-- The state machine of service plans. Whatever is not written here is refused, whoever asks.

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
    -- A plan that nobody activates any more leaves nothing behind that asks for money or for a person:
    -- prepaid.close_waiting_plans comes first.
    IF NEW.status = 'Cancelled' AND OLD.status IN ('Pending', 'Processing') AND (
        EXISTS (SELECT FROM prepaid.unsettled_plans u WHERE u.service_plan_id = NEW.service_plan_id)
        OR EXISTS (SELECT FROM prepaid.invoices i
                   WHERE i.service_plan_id = NEW.service_plan_id AND i.status = 'Open')
        OR EXISTS (SELECT FROM prepaid.holds h
                   WHERE h.service_plan_id = NEW.service_plan_id AND h.released_at IS NULL))
    THEN
        RAISE EXCEPTION 'service plan % cannot be Cancelled while it waits in the queue, is held or has an '
            'open invoice: prepaid.close_waiting_plans comes first', NEW.service_plan_id;
    END IF;
    IF OLD.status = 'Pending' AND NEW.status = 'Processing' AND NEW.invoiced_at IS NULL
        OR OLD.status = 'Processing' AND NEW.status = 'Pending'
        OR OLD.status = 'Active' AND NEW.status = 'Expired'
        OR OLD.status IN ('Pending', 'Processing', 'Active') AND NEW.status = 'Cancelled'
    THEN
        RETURN NEW;
    END IF;
    -- The way back from a business date that has not come ('prepaid undo'): the term runs on, or there
    -- is still time to pay.
    IF OLD.status = 'Expired' AND NEW.status = 'Active' AND NEW.end_date > prepaid.business_date(now())
        OR OLD.status = 'Cancelled' AND NEW.status = 'Pending'
           AND NEW.activated_on IS NULL AND NEW.invoiced_at IS NULL
           AND prepaid.business_date(now()) < (
               SELECT last.as_of
               FROM (SELECT a.as_of FROM prepaid.audit_log a
                     WHERE a.service_plan_id = NEW.service_plan_id
                       AND a.event = 'service_plan_cancelled'
                     ORDER BY a.audit_id DESC LIMIT 1) last
               WHERE EXISTS (SELECT FROM prepaid.audit_log a
                             WHERE a.service_plan_id = NEW.service_plan_id
                               AND a.event = 'payment_not_received' AND a.as_of = last.as_of))
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
