-- Teams are database roles without login; each person is a role of their own in one of them.
-- Roles belong to the server, not to the database: another database may have made them already.

DO $$
DECLARE
    team text;
BEGIN
    FOREACH team IN ARRAY ARRAY['finance', 'customer_success', 'leadership', 'engineering'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', team);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA prepaid TO finance, customer_success, engineering;
GRANT USAGE ON SCHEMA revenue TO finance, leadership, engineering;

REVOKE EXECUTE ON FUNCTION prepaid.decide_tasks FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION prepaid.release_holds FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION prepaid.assign_record FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION prepaid.resend_emails FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.decide_tasks TO finance, customer_success;
GRANT EXECUTE ON FUNCTION prepaid.assign_record TO finance;
GRANT EXECUTE ON FUNCTION prepaid.release_holds TO finance, customer_success, engineering;
GRANT EXECUTE ON FUNCTION prepaid.resend_emails TO customer_success, engineering;

REVOKE EXECUTE ON FUNCTION prepaid.cancel, prepaid.change_plan, prepaid.void_invoice FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.cancel, prepaid.change_plan TO finance, customer_success;
GRANT EXECUTE ON FUNCTION prepaid.void_invoice TO finance;

GRANT SELECT, UPDATE (decision, note) ON prepaid.payment_verifications TO finance;
GRANT SELECT ON prepaid.payment_suggestions TO finance;
GRANT SELECT ON prepaid.customers, prepaid.subscriptions, prepaid.service_plans, prepaid.invoices,
    prepaid.invoice_lines, prepaid.credit_notes, prepaid.credit_note_lines, prepaid.requests,
    prepaid.transactions, prepaid.tasks, prepaid.sign_offs, prepaid.holds
    TO finance;
GRANT SELECT, UPDATE (decision, note) ON prepaid.quality_checks TO customer_success;
GRANT SELECT ON prepaid.tasks, prepaid.holds TO customer_success;
GRANT SELECT ON ALL TABLES IN SCHEMA prepaid TO engineering;
GRANT SELECT ON ALL TABLES IN SCHEMA revenue TO finance, leadership, engineering;
