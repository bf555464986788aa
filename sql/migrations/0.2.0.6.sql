-- The window of business dates: what cannot be taken back waits until its day has come, and there is a
-- way back from a day that has not.

ALTER TABLE prepaid.installation ADD COLUMN first_real_day date;

-- Whoever has worked for the day that it was has real customers.
UPDATE prepaid.installation i SET first_real_day = worked.first_day
FROM (SELECT min(a.as_of) AS first_day
      FROM prepaid.audit_log a CROSS JOIN prepaid.installation z
      WHERE (a.run_id IS NOT NULL OR a.actor IN ('prepaid drain', 'import'))
        AND a.as_of = (a.at AT TIME ZONE z.timezone)::date) worked
WHERE worked.first_day IS NOT NULL;

-- Two ways back are new: Expired -> Active and Cancelled -> Pending, both only from a day to come.
CREATE OR REPLACE FUNCTION prepaid.check_plan_transition() RETURNS trigger LANGUAGE plpgsql AS $$
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
