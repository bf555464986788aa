-- The audit log, and who is acting, in which run and for which day. It comes first: each trigger that
-- writes it stands beside the table that it watches.
--
-- Append-only. Every change of state writes its row in the same transaction, by triggers that no
-- caller can forget. No foreign keys: the log must not depend on what it describes, and no
-- personal data: an entry can never be erased.
--
-- Statement triggers with transition tables: one insert per statement, not one per row. Their plans
-- are kept from the first call in a session, often one of no rows at all; without nested loops such
-- a plan is still right for ten thousand (2,700 rows: 0.02 s instead of 1.4 s).

-- The migrations make the schema first, for the table that says which of them have run.
CREATE SCHEMA IF NOT EXISTS prepaid;

CREATE TABLE prepaid.audit_log (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    event text NOT NULL,
    service_plan_id bigint,
    entity text NOT NULL,
    entity_id bigint,
    before text,
    after text,
    detail text,
    actor text NOT NULL,
    run_id text,
    as_of date
);
CREATE INDEX audit_log_by_service_plan ON prepaid.audit_log (service_plan_id, audit_id);
CREATE UNIQUE INDEX audit_log_provisioned_once ON prepaid.audit_log (service_plan_id)
    WHERE event = 'service_provisioned';
-- One entry a day for a subscription whose plan cannot be opened, however often it is tried.
CREATE UNIQUE INDEX audit_log_opening_failed ON prepaid.audit_log (entity_id, as_of)
    WHERE event = 'opening_failed';

-- What gives somebody a hand in a plan (view four_eyes): few of all entries, so that a look-up per task
-- costs nothing. Plans and invoices that the pipeline opens are nobody's.
CREATE INDEX audit_log_of_hands ON prepaid.audit_log (service_plan_id)
    WHERE event IN ('hold_released', 'transaction_assigned', 'change_requested',
                    'cancellation_requested', 'invoice_void_requested', 'invoice_reissue_requested',
                    'service_plan_cancelled', 'term_cut', 'invoice_void', 'credit_note_issued');
-- Who last changed a customer, a subscription or a discount.
CREATE INDEX audit_log_of_master_data ON prepaid.audit_log (entity, entity_id, audit_id)
    WHERE service_plan_id IS NULL;
-- Holds by the day on which they were placed: few of all entries.
CREATE INDEX audit_log_of_holds ON prepaid.audit_log (as_of, at) WHERE event = 'hold_placed';

-- A person is the role that was set; current_user would be the owner inside SECURITY DEFINER.
CREATE FUNCTION prepaid.acting_person() RETURNS text LANGUAGE sql STABLE RETURN
    CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;

-- Whether the session was opened by the pipeline's own user, who alone may make tables here, or by the
-- desk, and not by a person under a login of theirs. What counts is who logged in: SET ROLE changes
-- nothing about it. (No subquery: the planner puts the expression in the place of each call.)
CREATE FUNCTION prepaid.is_own_session() RETURNS boolean LANGUAGE sql STABLE RETURN
    has_schema_privilege(session_user, 'prepaid'::regnamespace, 'CREATE')
    OR pg_has_role(session_user, 'desk', 'USAGE');

-- What a session says of itself: actor, run_id or as_of. Anybody can set prepaid.*; it counts in our
-- own sessions only. All that is read in these settings by what is in the schema is read here.
CREATE FUNCTION prepaid.context(setting text) RETURNS text LANGUAGE sql STABLE RETURN
    CASE WHEN prepaid.is_own_session()
        THEN nullif(current_setting('prepaid.' || setting, true), '') END;

-- Who did it: a person under their own role, else the job that the pipeline names in prepaid.actor.
CREATE FUNCTION prepaid.actor() RETURNS text LANGUAGE sql STABLE RETURN
    CASE current_setting('role') WHEN 'none'
        THEN coalesce(prepaid.context('actor'), session_user::text)
        ELSE current_setting('role') END;
CREATE FUNCTION prepaid.run_id() RETURNS text LANGUAGE sql STABLE RETURN prepaid.context('run_id');
CREATE FUNCTION prepaid.as_of() RETURNS date LANGUAGE sql STABLE RETURN prepaid.context('as_of')::date;

CREATE FUNCTION prepaid.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
ALTER TABLE prepaid.audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;

-- Master data: which columns changed, with values where they are prices and not personal data
-- (TG_ARGV: entity, key column, 'names' or 'values', the columns that say which of several rows).
CREATE FUNCTION prepaid.audit_master_data() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    which text;
    changed text;
BEGIN
    SELECT string_agg(k.name || ' ' || (to_jsonb(NEW) ->> k.name), ', ' ORDER BY k.place) || '; '
    INTO which
    FROM unnest(string_to_array(TG_ARGV[3], ',')) WITH ORDINALITY k (name, place);
    SELECT string_agg(n.key || CASE TG_ARGV[2] WHEN 'values'
               THEN ': ' || coalesce(o.value, 'none') || ' -> ' || coalesce(n.value, 'none')
               ELSE '' END, ', ' ORDER BY n.key)
    INTO changed
    FROM jsonb_each_text(to_jsonb(NEW)) n
    JOIN jsonb_each_text(to_jsonb(OLD)) o USING (key)
    WHERE n.value IS DISTINCT FROM o.value;
    INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
    VALUES (TG_ARGV[0] || '_changed', TG_ARGV[0], (to_jsonb(NEW) ->> TG_ARGV[1])::bigint,
            concat(which, changed),
            prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    RETURN NULL;
END $$;

-- What changes an amount from a day on is a row of its own: a discount, a price that takes another
-- one's place (one from the beginning is no change). TG_ARGV: entity, key column.
CREATE FUNCTION prepaid.audit_added_master_data() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
    SELECT TG_ARGV[0] || '_added', TG_ARGV[0], (added.was ->> TG_ARGV[1])::bigint,
           (SELECT string_agg(key || ': ' || value, ', ' ORDER BY key)
            FROM jsonb_each_text(jsonb_strip_nulls(added.was) - TG_ARGV[1] - 'created_at')),
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM (SELECT to_jsonb(n) AS was FROM new_rows n) added
    WHERE added.was ->> 'valid_from' IS DISTINCT FROM '1900-01-01';
    RETURN NULL;
END $$;
