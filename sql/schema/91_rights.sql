-- Teams are database roles without login; each person is a role of their own in one of them.
-- Roles belong to the server, not to the database: another database may have made them already.
-- What each may do is written down in docs/rights.md, and a test compares the two. None of it is of use
-- without entry to the schemas, which people have, and the desk's login, and no team (prepaid.let_in).

DO $$
DECLARE
    team text;
BEGIN
    FOR team IN SELECT t.team FROM prepaid.teams t UNION ALL SELECT 'desk' LOOP
        BEGIN
            -- NOINHERIT is for desk, which may take the role of a person and has none of their rights.
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', team);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION prepaid.decide_tasks FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION prepaid.release_holds FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION prepaid.assign_record FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION prepaid.resend_emails, prepaid.settle_emails, prepaid.correct_email_address
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.decide_tasks TO finance, customer_success;
GRANT EXECUTE ON FUNCTION prepaid.assign_record TO finance;
GRANT EXECUTE ON FUNCTION prepaid.release_holds TO finance, customer_success, engineering;
GRANT EXECUTE ON FUNCTION prepaid.resend_emails, prepaid.settle_emails TO customer_success, engineering;
GRANT EXECUTE ON FUNCTION prepaid.correct_email_address TO customer_success;
GRANT SELECT ON prepaid.undelivered_mails TO customer_success;

REVOKE EXECUTE ON FUNCTION prepaid.cancel, prepaid.change_plan, prepaid.void_invoice FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.cancel, prepaid.change_plan TO finance, customer_success;
GRANT EXECUTE ON FUNCTION prepaid.void_invoice TO finance;

GRANT SELECT, UPDATE (decision, note) ON prepaid.payment_verifications TO finance;
GRANT SELECT, UPDATE (decision, note) ON prepaid.price_concessions TO finance;
GRANT SELECT ON prepaid.payment_suggestions TO finance;
GRANT SELECT ON prepaid.customers, prepaid.subscriptions, prepaid.service_plans, prepaid.invoices,
    prepaid.invoice_lines, prepaid.credit_notes, prepaid.credit_note_lines, prepaid.requests,
    prepaid.transactions, prepaid.tasks, prepaid.sign_offs, prepaid.holds
    TO finance;
GRANT SELECT, UPDATE (decision, note) ON prepaid.quality_checks TO customer_success;
-- Without the notes: what finance wrote about payments is among them.
GRANT SELECT (task_id, kind, service_plan_id, invoice_id, transaction_id, parent_task_id, assigned_role,
              status, opened_on, opened_at, decision, decided_by, decided_at, closed_at, credit_note_id,
              first_approved_by, first_approved_at, due_on, assigned_to)
    ON prepaid.tasks TO customer_success;
GRANT SELECT (hold_id, service_plan_id, reason_code, held_at, released_at, released_by)
    ON prepaid.holds TO customer_success;
GRANT SELECT (assignment_id, task_id, assigned_to, assigned_by, assigned_at)
    ON prepaid.task_assignments TO customer_success;
GRANT SELECT ON prepaid.task_assignments TO finance;
GRANT SELECT ON prepaid.parked_payments, prepaid.approval_limits TO finance;
GRANT SELECT ON prepaid.installation, prepaid.desk_overview, prepaid.sign_off_times,
    prepaid.held_plans, prepaid.decisions, prepaid.plan_events, prepaid.plan_summaries
    TO finance, customer_success;
GRANT SELECT ON ALL TABLES IN SCHEMA prepaid TO engineering;

-- Whoever reached them could stop the pipeline, or be forgotten as the one who does.
REVOKE ALL ON prepaid.locks, prepaid.blocking_sessions FROM engineering;

-- How people sign in is nobody's to read, and only the pages' own login asks about it.
REVOKE ALL ON prepaid.desk_accounts, prepaid.desk_sessions FROM engineering;
REVOKE EXECUTE ON FUNCTION prepaid.desk_account, prepaid.desk_person, prepaid.desk_failed,
    prepaid.desk_open_session, prepaid.desk_session, prepaid.desk_end_session, prepaid.desk_end_sessions,
    prepaid.set_password, prepaid.set_disabled, prepaid.reassign_tasks FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.desk_account, prepaid.desk_person, prepaid.desk_failed,
    prepaid.desk_open_session, prepaid.desk_session, prepaid.desk_end_session, prepaid.desk_end_sessions
    TO desk;
REVOKE ALL ON prepaid.operator_sessions FROM engineering;
REVOKE EXECUTE ON FUNCTION prepaid.operator_open_session, prepaid.operator_end_session,
    prepaid.ui_session FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.operator_open_session, prepaid.operator_end_session,
    prepaid.ui_session TO desk;
-- What people decided at the desk is sealed at once; sealing changes nothing and tells nothing.
REVOKE EXECUTE ON FUNCTION prepaid.seal_audit_log FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.seal_audit_log TO desk;
GRANT EXECUTE ON FUNCTION prepaid.reassign_tasks TO finance, customer_success;
REVOKE EXECUTE ON FUNCTION prepaid.decide_as_seen FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.decide_as_seen TO finance, customer_success;
REVOKE EXECUTE ON FUNCTION prepaid.latest_decisions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.latest_decisions TO finance, customer_success, engineering;
REVOKE EXECUTE ON FUNCTION prepaid.set_customer_email FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.set_customer_email TO customer_success;
GRANT SELECT ON prepaid.quality_features TO customer_success;
GRANT SELECT ON prepaid.colleagues TO finance, customer_success;

REVOKE EXECUTE ON FUNCTION revenue.plans_behind_mrr, revenue.plans_behind_activations,
    revenue.plans_behind_movements, revenue.plans_behind_credit_notes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION revenue.plans_behind_mrr, revenue.plans_behind_activations,
    revenue.plans_behind_movements, revenue.plans_behind_credit_notes TO finance, leadership, engineering;

-- The owner does not need these rights, and would have to give them back to itself to change what was
-- signed or logged. (Triggers refuse it even then.)
REVOKE UPDATE, DELETE, TRUNCATE ON prepaid.sign_offs, prepaid.audit_log, prepaid.audit_seals
    FROM CURRENT_USER;
-- But people's words can be erased from a sign-off, and nothing else of it (a trigger sees to that).
GRANT UPDATE (note) ON prepaid.sign_offs TO CURRENT_USER;
REVOKE EXECUTE ON FUNCTION prepaid.erase_customer FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.erase_customer TO customer_success, engineering;
GRANT SELECT ON ALL TABLES IN SCHEMA revenue TO finance, leadership, engineering;
-- The monthly reports are for everybody; the figures behind them are not.
GRANT SELECT ON revenue.report_versions TO customer_success;

-- What a team may read of tables that it may not read itself, it reads through these. As barriers they show
-- a condition of the reader's, which may tell what it is asked about, no row that they leave out.
ALTER VIEW prepaid.team_members SET (security_barrier);
ALTER VIEW prepaid.payment_verifications SET (security_barrier);
ALTER VIEW prepaid.quality_checks SET (security_barrier);
ALTER VIEW prepaid.price_concessions SET (security_barrier);
ALTER VIEW prepaid.terms_below_list SET (security_barrier);
ALTER VIEW prepaid.held_plans SET (security_barrier);
ALTER VIEW prepaid.undelivered_mails SET (security_barrier);
ALTER VIEW prepaid.desk_overview SET (security_barrier);
ALTER VIEW prepaid.sign_off_times SET (security_barrier);
ALTER VIEW prepaid.decisions SET (security_barrier);
ALTER VIEW prepaid.plan_events SET (security_barrier);
ALTER VIEW prepaid.plan_summaries SET (security_barrier);
ALTER VIEW prepaid.quality_features SET (security_barrier);
ALTER VIEW prepaid.colleagues SET (security_barrier);

-- What people do in sessions of their own is written down in the same words, whatever a session sets.
ALTER FUNCTION prepaid.assign_record SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.cancel SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.change_plan SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.correct_email_address SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.decide_as_seen SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.decide_tasks SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.erase_customer SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.reassign_tasks SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.release_holds SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.resend_emails SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.set_customer_email SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.settle_emails SET datestyle TO 'ISO, YMD';
ALTER FUNCTION prepaid.void_invoice SET datestyle TO 'ISO, YMD';
