-- What the forms of the sign-off pages call beside decide_tasks.

-- Decides what a person saw: each task with the latest sign-off that the page showed (0: none). If
-- somebody was faster nothing is decided, and the error says who it was. With agreeing_only every
-- payment must still agree. Returns how many decisions were recorded.
CREATE FUNCTION prepaid.decide_as_seen(
    task_ids bigint[], seen bigint[], new_decision text, new_note text, agreeing_only boolean
) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    changed record;
BEGIN
    IF cardinality(task_ids) IS DISTINCT FROM cardinality(seen) THEN
        RAISE EXCEPTION 'every task needs what was seen of it';
    END IF;
    PERFORM FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id FOR UPDATE;

    SELECT asked.task_id, last.decided_by, last.decision, count(*) OVER () AS others INTO changed
    FROM unnest(task_ids, seen) asked (task_id, seen)
    CROSS JOIN LATERAL (
        SELECT s.sign_off_id, s.decided_by, s.decision FROM prepaid.sign_offs s
        WHERE s.task_id = asked.task_id ORDER BY s.sign_off_id DESC LIMIT 1) last
    WHERE last.sign_off_id > asked.seen
    ORDER BY asked.task_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'nothing was recorded: % % task % while you looked%', changed.decided_by,
            changed.decision, changed.task_id,
            CASE WHEN changed.others > 1 THEN format(', and %s more were decided', changed.others - 1)
                 ELSE '' END;
    END IF;

    IF agreeing_only THEN
        SELECT v.invoice_number, v.difference, count(*) OVER () AS others INTO changed
        FROM unnest(task_ids) asked (task_id)
        CROSS JOIN LATERAL (SELECT * FROM prepaid.payment_verifications
                            WHERE task_id = asked.task_id OFFSET 0) v
        WHERE NOT v.agrees ORDER BY v.task_id LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'nothing was recorded: the payment of invoice % no longer agrees (%)%',
                changed.invoice_number, changed.difference,
                CASE WHEN changed.others > 1 THEN format(', nor do %s more', changed.others - 1)
                     ELSE '' END;
        END IF;
    END IF;
    RETURN prepaid.decide_tasks(task_ids, new_decision, new_note);
END $$;

-- Gives the customer of a plan an address, for the person who is acting, of customer success: what
-- a plan that is held for want of one needs. Plans whose details were taken before keep theirs.
CREATE FUNCTION prepaid.set_customer_email(plan bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_in(ARRAY['customer_success'], 'change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not an e-mail address', address;
    END IF;
    UPDATE prepaid.customers c SET email = address
    FROM prepaid.service_plans p WHERE p.service_plan_id = plan AND c.customer_id = p.customer_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service plan %', plan;
    END IF;
END $$;

-- The features of a quality check one by one, so that a person can say which of them failed.
CREATE VIEW prepaid.quality_features AS
SELECT k.task_id, 0 AS place, p.plan_name AS feature, p.quantity::bigint AS quantity
FROM prepaid.tasks k JOIN prepaid.service_plans p USING (service_plan_id)
WHERE k.kind LIKE 'quality%'
UNION ALL
SELECT k.task_id, a.place, a.addon ->> 'name', coalesce((a.addon ->> 'quantity')::bigint, 1)
FROM prepaid.tasks k JOIN prepaid.service_plans p USING (service_plan_id)
CROSS JOIN LATERAL jsonb_array_elements(p.addons) WITH ORDINALITY a (addon, place)
WHERE k.kind LIKE 'quality%';

-- Whom an open task can be handed to: the names of its team.
CREATE VIEW prepaid.colleagues AS
SELECT m.team, m.person FROM prepaid.team_members m
WHERE m.team IN (SELECT own.team FROM prepaid.team_members own WHERE own.person = prepaid.acting_person());
