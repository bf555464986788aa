-- What people decided, and the one function by which they do.

CREATE TABLE prepaid.sign_offs (
    sign_off_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL REFERENCES prepaid.tasks,
    decision text NOT NULL CHECK (decision IN ('approved', 'rejected', 'passed', 'failed')),
    note text,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sign_offs_by_task ON prepaid.sign_offs (task_id, sign_off_id);
CREATE TRIGGER sign_offs_append_only BEFORE DELETE OR TRUNCATE ON prepaid.sign_offs
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
-- Also for a session that plays a replica (session_replication_role), in which triggers rest.
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER sign_offs_append_only;

-- A sign-off is made by the person whose name it has, and for their own team: not by the pipeline,
-- and not by the owner of the tables in somebody's name.
CREATE FUNCTION prepaid.only_people_sign() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    PERFORM prepaid.require_current_sight();
    SELECT n.decided_by, k.task_id, k.assigned_role INTO wrong
    FROM new_rows n LEFT JOIN prepaid.tasks k USING (task_id)
    WHERE n.decided_by <> prepaid.acting_person() OR k.assigned_role NOT IN (
        SELECT m.team FROM prepaid.team_members m WHERE m.person = prepaid.acting_person())
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'no sign-off of task % by %: only somebody in % can sign it, under their own name',
            wrong.task_id, wrong.decided_by, wrong.assigned_role;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER only_people_sign AFTER INSERT ON prepaid.sign_offs
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.only_people_sign();
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER only_people_sign;

-- Decides tasks for the person who is acting (the role that is set, or the session's user).
-- All or nothing. Returns how many decisions were recorded; the same decision again is not one. Above
-- the limit the first approval leaves the task Open; a rejection needs one person.
CREATE FUNCTION prepaid.decide_tasks(task_ids bigint[], new_decision text, new_note text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp
-- All look-ups are by key, so one plan is right for 1 task and for 3,000; planning again cost as much.
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    person text := prepaid.acting_person();
    teams text[] := ARRAY(SELECT m.team FROM prepaid.team_members m WHERE m.person = acting_person());
    recorded integer;
    refused record;
BEGIN
    -- In a session of one's own prepaid.actor could say anything: the audit log names the person.
    PERFORM set_config('prepaid.actor', person, true);
    PERFORM FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) ORDER BY k.task_id FOR UPDATE;

    -- Look-ups by key (OFFSET 0 keeps the planner from turning them round): the view's trigger calls
    -- this once per row, and a scan of all tasks each time would make 3,000 approvals quadratic.
    SELECT * INTO refused FROM (
        SELECT asked.task_id, CASE
            WHEN k.task_id IS NULL THEN 'there is no such task'
            WHEN k.assigned_role <> ALL (teams)
                THEN format('it belongs to %s, and %s is not in that team', k.assigned_role, person)
            WHEN k.status = 'Withdrawn'
                THEN 'it was withdrawn; look for the new task of the same invoice'
            WHEN new_decision IS NULL
                OR new_decision NOT IN ('approved', 'rejected', 'passed', 'failed')
                OR (k.kind LIKE 'quality%') = (new_decision IN ('approved', 'rejected'))
                THEN format('the decision must be %s, not %s',
                    CASE WHEN k.kind LIKE 'quality%' THEN 'passed or failed'
                         ELSE 'approved or rejected' END, coalesce(quote_literal(new_decision), 'empty'))
            WHEN new_decision IN ('rejected', 'failed') AND coalesce(new_note, '') !~ '\S'
                THEN format('%s needs a note that says why', new_decision)
            WHEN i.status <> 'Open' AND k.kind = 'payment_verification'
                THEN format('invoice %s is already %s', i.invoice_number, i.status)
            WHEN k.status = 'Done' AND priced.invoice_number IS NOT NULL
                THEN format('its price is invoiced already (%s)', priced.invoice_number)
            WHEN k.closed_at IS NOT NULL THEN 'it is closed; use its follow-up task'
            WHEN new_decision = 'approved' AND k.status = 'Open' AND k.first_approved_by = person
                THEN format('%s has approved it already, as the first of two: somebody else approves '
                            'it next', person)
            WHEN own.what IS NOT NULL THEN format('%s %s: %s', person, own.what,
                CASE WHEN EXISTS (SELECT FROM prepaid.tasks_nobody_may_decide u WHERE u.task_id = k.task_id)
                     THEN format('nobody in %s may decide it, so add somebody to the team', k.assigned_role)
                     ELSE 'somebody else decides' END)
            WHEN k.kind = 'payment_verification' AND new_decision = 'approved'
                 AND prepaid.payment_stands(k.invoice_id) IS NOT TRUE
                THEN (SELECT format('there is nothing to approve: %s; %s', v.difference, v.what_to_do)
                      FROM prepaid.payment_verifications v
                      WHERE v.task_id = k.task_id AND v.what_to_do IS NOT NULL)
            END AS reason
        FROM unnest(task_ids) asked (task_id)
        LEFT JOIN LATERAL (SELECT * FROM prepaid.tasks
                           WHERE task_id = asked.task_id OFFSET 0) k ON true
        LEFT JOIN LATERAL (SELECT * FROM prepaid.invoices
                           WHERE invoice_id = k.invoice_id OFFSET 0) i ON true
        LEFT JOIN LATERAL (SELECT invoice_number FROM prepaid.invoices
                           WHERE k.kind = 'price_concession' AND service_plan_id = k.service_plan_id
                             AND status <> 'Void' OFFSET 0) priced ON true
        LEFT JOIN LATERAL (SELECT e.what FROM prepaid.four_eyes e
                           WHERE e.task_id = asked.task_id AND e.person = acting_person()
                           LIMIT 1) own ON true
    ) judged
    WHERE reason IS NOT NULL ORDER BY task_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task % cannot be decided: %', refused.task_id, refused.reason;
    END IF;

    WITH decided AS (
        UPDATE prepaid.tasks k
        SET status = CASE WHEN step.is_first THEN 'Open' ELSE 'Done' END,
            decision = CASE WHEN NOT step.is_first THEN new_decision END,
            note = CASE WHEN NOT step.is_first THEN new_note END,
            decided_by = CASE WHEN NOT step.is_first THEN person END,
            decided_at = CASE WHEN NOT step.is_first THEN clock_timestamp() END,
            first_approved_by = CASE WHEN step.is_first THEN person
                                     WHEN new_decision = 'approved' THEN k.first_approved_by END,
            first_approved_at = CASE WHEN step.is_first THEN clock_timestamp()
                                     WHEN new_decision = 'approved' THEN k.first_approved_at END
        FROM (
            SELECT t.task_id, two.needed, two.needed AND t.first_approved_by IS NULL AS is_first
            FROM (SELECT DISTINCT task_id FROM unnest(task_ids) asked (task_id)) asked
            CROSS JOIN LATERAL (SELECT * FROM prepaid.tasks
                                WHERE task_id = asked.task_id OFFSET 0) t
            CROSS JOIN LATERAL (SELECT new_decision = 'approved' AND EXISTS (
                SELECT FROM prepaid.two_person_tasks WHERE task_id = t.task_id OFFSET 0) AS needed) two
        ) step
        WHERE k.task_id = step.task_id
          AND (k.decision, k.note, k.decided_by) IS DISTINCT FROM (new_decision, new_note, person)
          -- Two have approved: a third approval adds nothing.
          AND NOT (k.decision = 'approved' AND new_decision = 'approved'
                   AND (step.needed OR k.first_approved_by IS NOT NULL)) IS TRUE
        RETURNING k.task_id
    )
    INSERT INTO prepaid.sign_offs (task_id, decision, note, decided_by)
    SELECT task_id, new_decision, new_note, person FROM decided ORDER BY task_id;
    GET DIAGNOSTICS recorded = ROW_COUNT;

    IF new_decision = 'rejected' THEN
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT i.service_plan_id, 'payment_rejected',
            format('%s rejected the payment of invoice %s: %s. Clear it up with the customer; '
                   'releasing the hold asks finance again.', person, i.invoice_number, new_note)
        FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'payment_verification'
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT k.service_plan_id, 'price_concession',
            format('%s rejected the price: %s. Change it (prepaid subscriptions change), then release the '
                   'hold, or cancel the plan.', person, new_note)
        FROM prepaid.tasks k WHERE k.task_id = ANY (task_ids) AND k.kind = 'price_concession'
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO UPDATE SET text = excluded.text;
    ELSIF new_decision = 'approved' THEN
        -- A later approval of the same task (the second one, where it takes two) replaces the
        -- rejection, and with it the hold.
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = 'approved after all'
        FROM prepaid.tasks k JOIN prepaid.invoices i USING (invoice_id)
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'payment_verification' AND k.status = 'Done'
          AND h.service_plan_id = i.service_plan_id AND h.reason_code = 'payment_rejected'
          AND h.released_at IS NULL;
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = 'the price was approved'
        FROM prepaid.tasks k
        WHERE k.task_id = ANY (task_ids) AND k.kind = 'price_concession' AND k.status = 'Done'
          AND h.service_plan_id = k.service_plan_id AND h.reason_code = 'price_concession'
          AND h.released_at IS NULL;
    END IF;
    RETURN recorded;
END $$;
