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
