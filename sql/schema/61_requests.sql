-- What people asked for beside their tasks: to cancel, to change a plan, to void or reissue an
-- invoice; who, when and why. Rows are only ever added. The notes are here and not in the audit log,
-- which holds no personal data.

CREATE TABLE prepaid.requests (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('cancellation', 'change', 'invoice_void', 'invoice_reissue')),
    subscription_id bigint NOT NULL REFERENCES prepaid.subscriptions,
    -- The term that ends, the plan that the change opened, or the plan whose invoice it is; null when
    -- only the subscription was changed.
    service_plan_id bigint REFERENCES prepaid.service_plans,
    invoice_id bigint REFERENCES prepaid.invoices,
    asked_on date NOT NULL,
    effective_on date,
    note text NOT NULL CHECK (note ~ '\S'),
    asked_by text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- A change: what the subscription had and what it got (prepaid.subscription_state).
    before jsonb,
    after jsonb
);
CREATE INDEX requests_by_service_plan ON prepaid.requests (service_plan_id);
CREATE INDEX requests_by_subscription ON prepaid.requests (subscription_id);
CREATE TRIGGER requests_append_only BEFORE DELETE OR TRUNCATE ON prepaid.requests
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

CREATE FUNCTION prepaid.audit_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, after, actor, run_id, as_of)
    VALUES (NEW.kind || '_requested', NEW.service_plan_id, 'request', NEW.request_id,
            NEW.effective_on::text, prepaid.actor(), prepaid.run_id(), prepaid.as_of());
    RETURN NULL;
END $$;
CREATE TRIGGER audit_request AFTER INSERT ON prepaid.requests
    FOR EACH ROW EXECUTE FUNCTION prepaid.audit_request();
