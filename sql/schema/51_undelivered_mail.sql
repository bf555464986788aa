-- What support does about emails that failed permanently, or of which nobody knows whether they arrived.

-- Support's list: what failed permanently, and what may or may not have arrived.
CREATE VIEW prepaid.undelivered_mails AS
SELECT e.email_id, e.status, e.template, e.occasion, e.recipient, e.created_at, e.attempts,
       e.unknown_attempts, e.last_error, e.service_plan_id, c.customer_ref, c.name AS customer_name,
       coalesce(p.plan_name, l.name) AS plan_name, i.invoice_number
FROM prepaid.emails e
LEFT JOIN prepaid.service_plans p USING (service_plan_id)
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.plans l ON l.plan_id = p.plan_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id
    AND CASE WHEN e.invoice_id IS NULL THEN i.status <> 'Void' ELSE i.invoice_id = e.invoice_id END
WHERE e.status IN ('failed', 'unknown');

-- Locks the mails that a person named and refuses the first that is not in one of ``states``, for an
-- action such as 'be sent again'.
CREATE FUNCTION prepaid.require_emails(email_ids bigint[], states text[], action text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    refused record;
BEGIN
    PERFORM FROM prepaid.emails e WHERE e.email_id = ANY (email_ids) ORDER BY e.email_id FOR UPDATE;
    SELECT asked.email_id, e.status INTO refused
    FROM unnest(email_ids) asked (email_id)
    LEFT JOIN prepaid.emails e USING (email_id)
    WHERE e.status <> ALL (states) OR e.status IS NULL ORDER BY asked.email_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'email % cannot %: %', refused.email_id, action, coalesce(
            'only ' || array_to_string(states, ' and ') || ' ones can, and it is ' || refused.status,
            'there is no such email');
    END IF;
END $$;

-- Sends failed and unknown mails again under the acting person's name, all or nothing: what was
-- written is sent as it was, the same bytes with the same Message-ID. One that may have arrived gets
-- one more attempt of unknown outcome, no two. Returns how many.
CREATE FUNCTION prepaid.resend_emails(email_ids bigint[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    resent integer;
BEGIN
    PERFORM prepaid.person_who_may('resend emails');
    PERFORM prepaid.require_emails(email_ids, ARRAY['failed', 'unknown'], 'be sent again');
    UPDATE prepaid.emails e
    SET status = 'pending', attempts = 0, next_attempt_at = clock_timestamp(), deferred_since = NULL,
        unknown_attempts = least(e.unknown_attempts, 1)
    WHERE e.email_id = ANY (email_ids);
    GET DIAGNOSTICS resent = ROW_COUNT;
    RETURN resent;
END $$;

-- Takes mails off the list without sending them, all or nothing, with the reason: an unknown one has
-- arrived and counts as sent, a failed one is not needed any more and is dropped. Returns how many.
CREATE FUNCTION prepaid.settle_emails(email_ids bigint[], why text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('settle emails', why);
    settled integer;
BEGIN
    PERFORM prepaid.require_emails(email_ids, ARRAY['failed', 'unknown'], 'be settled');
    UPDATE prepaid.emails e
    SET status = CASE e.status WHEN 'unknown' THEN 'sent' ELSE 'dropped' END,
        sent_at = CASE e.status WHEN 'unknown' THEN clock_timestamp() END,
        last_error = concat_ws('; ', e.last_error, format('settled by %s: %s', person, why))
    WHERE e.email_id = ANY (email_ids);
    GET DIAGNOSTICS settled = ROW_COUNT;
    RETURN settled;
END $$;

-- Sends a failed email to another address: it is written again, as another message. The customer gets
-- that address for later mails too.
CREATE FUNCTION prepaid.correct_email_address(mail bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_who_says_why('change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not a valid email address', address;
    END IF;
    -- Of an unknown one a copy may be where it was sent: it stays the mail that it is.
    PERFORM prepaid.require_emails(ARRAY[mail], ARRAY['failed'], 'go to another address');
    IF EXISTS (SELECT FROM prepaid.emails WHERE email_id = mail AND service_plan_id IS NULL) THEN
        RAISE EXCEPTION 'email % is to one of our own staff: their address is changed with prepaid user add',
            mail;
    END IF;
    UPDATE prepaid.emails
    SET status = 'pending', attempts = 0, next_attempt_at = clock_timestamp(), deferred_since = NULL,
        recipient = address, corrections = corrections + 1, message_id = NULL, content = NULL
    WHERE email_id = mail;
    UPDATE prepaid.customers c SET email = address
    FROM prepaid.emails e JOIN prepaid.service_plans p USING (service_plan_id)
    WHERE e.email_id = mail AND c.customer_id = p.customer_id AND c.email IS DISTINCT FROM address;
    PERFORM prepaid.withdraw_own_approvals_of(p.customer_id)
    FROM prepaid.emails e JOIN prepaid.service_plans p USING (service_plan_id) WHERE e.email_id = mail;
END $$;
