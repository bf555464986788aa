-- From 0006: what happens when a plan is cancelled, a credit note issued or a task opened is called where
-- it is read, and no trigger does it. The reasons for holds and what each team may do are tables.

DROP TRIGGER close_cancelled_plan ON prepaid.service_plans;
DROP TRIGGER follow_credit_note ON prepaid.credit_notes;
DROP TRIGGER set_due_date ON prepaid.tasks;
DROP FUNCTION prepaid.close_cancelled_plan;
DROP FUNCTION prepaid.void_open_invoice;
DROP FUNCTION prepaid.follow_credit_note;
DROP FUNCTION prepaid.person_in;
DROP FUNCTION prepaid.set_due_date;

-- What one line gets of its group's amount, by largest remainder, in whole units. Exactly it would be
-- share / divisor. The group's amount (shares: the sum of its lines' share) is rounded half up once; what
-- the whole quotients (floors: their sum) leave of it goes to the lines in the order of place, which is by
-- mod(share, divisor), greatest first. Sums and place are the caller's windows: a function over a whole
-- group would be called once per plan, and not be a part of one statement over ten thousand.
CREATE FUNCTION prepaid.allocated(
    share numeric, divisor numeric, shares numeric, floors numeric, place bigint
) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    div(share, divisor)
    + CASE WHEN place <= div(2 * shares + divisor, 2 * divisor) - floors THEN 1 ELSE 0 END;

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

-- Voids the open invoices of plans with what hangs on them: nobody is asked to pay or to verify any
-- more, and money that was matched to them goes to finance as a task.
CREATE FUNCTION prepaid.void_open_invoices(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = ANY (plans) AND kind = 'payment_verification' AND status = 'Open';
    -- Money of a paid invoice that was credited is paid back by the credit note's own task.
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on, due_on)
    SELECT 'payment_review', i.service_plan_id, i.invoice_id, t.transaction_id,
           prepaid.team_of('payment_review'), prepaid.today(), prepaid.task_due_on(prepaid.today())
    FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
    -- Void ones have no matched record. Saying so finds the invoice by its index; reading 40,000 of
    -- them cost 34 ms for each plan.
    WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void' AND t.outcome = 'matched'
      AND NOT EXISTS (SELECT FROM prepaid.credit_notes n WHERE n.service_plan_id = i.service_plan_id)
    ORDER BY i.service_plan_id, t.transaction_id
    ON CONFLICT DO NOTHING;
    -- In the words of match_payments for a record that comes only now.
    UPDATE prepaid.transactions t
    SET outcome = 'parked', outcome_reason = format('invoice %s is void', i.invoice_number)
    FROM prepaid.invoices i
    WHERE i.service_plan_id = ANY (plans) AND i.status = 'Open'
      AND t.invoice_id = i.invoice_id AND t.outcome = 'matched';
    -- The record is free: a person may assign it to another invoice.
    UPDATE prepaid.invoices SET status = 'Void', transaction_id = NULL
    WHERE service_plan_id = ANY (plans) AND status = 'Open';
END $$;

-- Voids an open invoice for the finance officer who is acting. With reissue the next run issues a new
-- one from what the subscription has then; without, the plan is held until somebody decides. The invoice
-- of a plan that is over (its payment was taken back) is not collectible; the plan stays as it is.
-- Returns the plan.
CREATE OR REPLACE FUNCTION prepaid.void_invoice(number text, reissue boolean, why text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('void invoices', why);
    i record;
    p record;
    over boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
    SELECT plan.* INTO p FROM prepaid.service_plans plan JOIN prepaid.invoices USING (service_plan_id)
    WHERE invoice_number = number FOR NO KEY UPDATE OF plan;
    -- The invoice as it is now that the plan is ours: a step may have paid it while we waited.
    SELECT * INTO i FROM prepaid.invoices WHERE invoice_number = number;
    over := p.status IN ('Expired', 'Cancelled');
    IF i.invoice_id IS NULL THEN
        RAISE EXCEPTION 'there is no invoice %', number;
    ELSIF i.status <> 'Open' THEN
        RAISE EXCEPTION 'invoice % is %: only an open one can be voided%', number, i.status,
            CASE i.status WHEN 'Paid' THEN '; a paid one is credited by cancelling its plan' ELSE '' END;
    ELSIF p.status = 'Active' THEN
        RAISE EXCEPTION 'service plan % of invoice % is active, although its payment was reversed: %',
            p.service_plan_id, number, CASE WHEN p.full_end_date IS NULL
                THEN 'cancel it at once, that voids the invoice'
                ELSE format('void it when the term has ended, on %s', p.end_date) END;
    ELSIF reissue AND over THEN
        RAISE EXCEPTION 'service plan % of invoice % is %: its invoice can be voided, not reissued',
            p.service_plan_id, number, p.status;
    END IF;
    PERFORM prepaid.void_open_invoices(ARRAY[p.service_plan_id]);
    -- What was doubtful about the payment was about this invoice.
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = person, note = why
    WHERE service_plan_id = p.service_plan_id AND released_at IS NULL
      AND reason_code IN (SELECT r.reason_code FROM prepaid.hold_reasons r WHERE r.about_invoice);
    -- A term that is over stays as it was: what was taken back is not collectible.
    IF NOT over THEN
        DELETE FROM prepaid.charges WHERE service_plan_id = p.service_plan_id;
    END IF;
    -- An order keeps the price that was agreed; all else is taken again from the subscription.
    UPDATE prepaid.service_plans
    SET status = 'Pending', invoiced_at = NULL, retrieved_at = NULL,
        price = CASE WHEN opened_on IS NULL THEN price END
    WHERE service_plan_id = p.service_plan_id AND NOT over;
    -- A worker that has the plan in hand finds it gone from its batch.
    IF over THEN
        DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = p.service_plan_id;
    ELSE
        UPDATE prepaid.unsettled_plans SET batch_id = NULL WHERE service_plan_id = p.service_plan_id;
    END IF;
    IF NOT reissue AND NOT over THEN
        INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
        SELECT p.service_plan_id, 'invoice_voided', format(
            '%s voided invoice %s: %s. Release the hold and a new invoice is issued, or cancel the plan.',
            person, number, why)
        ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;
    END IF;
    INSERT INTO prepaid.requests
        (kind, subscription_id, service_plan_id, invoice_id, asked_on, note, asked_by)
    VALUES (CASE WHEN reissue THEN 'invoice_reissue' ELSE 'invoice_void' END, p.subscription_id,
            p.service_plan_id, i.invoice_id, prepaid.today(), why, person);
    RETURN p.service_plan_id;
END $$;

CREATE FUNCTION prepaid.audit_new_credit_notes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, detail, actor, run_id, as_of)
    SELECT 'credit_note_issued', service_plan_id, 'credit_note', credit_note_id,
           format('%s over %s %s', credit_note_number, total, currency),
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows;
    RETURN NULL;
END $$;

CREATE TRIGGER audit_new_credit_notes AFTER INSERT ON prepaid.credit_notes
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_new_credit_notes();

-- What a credit note for the term's days from from_date on would say, line by line. No rows when
-- nothing was paid (its invoice is not Paid) or no day is left.
--
-- Net: each line's net x unused days / days of the full term, rounded half up. Tax: per (tax class,
-- rate) group the invoice's own tax in the same proportion, rounded half up once, allocated by
-- largest remainder, ties by line number (as EN 16931 has it for the invoice). One-time fees are not
-- credited, unless no day at all was used: then the credit is exactly the invoice.
-- Imported history has no invoice: its lines are the price and the add-ons that were noted with the
-- term, taxed at the rates that are valid on taxed_on in the customer's country; with paid_plan, in the
-- country and with the exemption that the plan which they pay was invoiced with.
CREATE OR REPLACE FUNCTION prepaid.unused_credit(
    plan bigint, from_date date, taxed_on date, paid_plan bigint DEFAULT NULL)
RETURNS TABLE (line_number integer, description text, net numeric, tax_class text, tax_rate numeric,
               tax numeric)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    term record;
    days integer;
    unused integer;
    unknown text;
BEGIN
    SELECT p.*, coalesce(p.full_end_date, p.end_date) AS paid_until, m.exponent, i.invoice_id,
           coalesce(paid.country, c.country) AS taxed_country,
           coalesce(paid.tax_exempt, c.tax_exempt) AS taxed_exempt, l.name AS present_name,
           coalesce(p.tax_class, l.tax_class) AS own_class
    INTO STRICT term
    FROM prepaid.service_plans p
    JOIN prepaid.customers c USING (customer_id)
    JOIN prepaid.currencies m ON m.currency = p.currency
    JOIN prepaid.plans l ON l.plan_id = p.plan_id
    LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Paid'
    LEFT JOIN prepaid.service_plans paid ON paid.service_plan_id = paid_plan
    WHERE p.service_plan_id = plan;
    days := term.paid_until - term.start_date;
    unused := term.paid_until - greatest(from_date, term.start_date);
    IF unused <= 0 OR term.origin = 'pipeline' AND term.invoice_id IS NULL THEN
        RETURN;
    END IF;

    IF term.origin = 'imported' AND NOT term.taxed_exempt THEN
        SELECT string_agg(DISTINCT class, ', ') INTO unknown
        FROM (SELECT term.own_class AS class
              UNION SELECT a ->> 'tax_class' FROM jsonb_array_elements(term.addons) a
              WHERE (a ->> 'recurring')::boolean OR unused = days) classes
        WHERE NOT EXISTS (SELECT FROM prepaid.tax_rates r WHERE r.country = term.taxed_country
                          AND r.tax_class = class AND r.valid_from <= taxed_on);
        IF unknown IS NOT NULL THEN
            RAISE EXCEPTION 'no tax rate is known for % in % on %, so the unused days of service plan % '
                'cannot be credited: add the rate (import tax_rates.csv), then try again',
                unknown, term.taxed_country, taxed_on, plan;
        END IF;
    END IF;

    -- Amounts are whole numbers of the currency's smallest unit here, and div() is exact: a quotient
    -- that was rounded before could be half a cent on the wrong side.
    RETURN QUERY
    WITH lines AS (
        SELECT l.line_number, l.description, l.net, l.tax_class, l.tax_rate, l.tax,
               CASE WHEN l.line_number > 1
                   THEN (term.addons -> (l.line_number - 2) ->> 'recurring')::boolean END AS recurring
        FROM prepaid.invoice_lines l WHERE l.invoice_id = term.invoice_id
        UNION ALL
        SELECT n.line_number, n.description,
               CASE WHEN n.includes_tax THEN prepaid.without_tax(n.amount, coalesce(r.rate, 0), term.exponent)
                    ELSE n.amount END, n.tax_class, r.rate, NULL, n.recurring
        FROM (SELECT 1 AS line_number, coalesce(term.plan_name, term.present_name) AS description,
                     term.price * term.quantity AS amount, term.price_includes_tax AS includes_tax,
                     term.own_class AS tax_class, true AS recurring
              UNION ALL
              SELECT 1 + a.place::integer, a.name, a.price * coalesce(a.quantity, 1),
                     coalesce(a.includes_tax, false), a.tax_class, a.recurring
              FROM ROWS FROM (jsonb_to_recordset(term.addons) AS (
                  name text, price numeric, quantity integer, includes_tax boolean, tax_class text,
                  recurring boolean)) WITH ORDINALITY a (
                  name, price, quantity, includes_tax, tax_class, recurring, place)) n
        LEFT JOIN LATERAL (
            SELECT r.rate FROM prepaid.tax_rates r
            WHERE r.country = term.taxed_country AND r.tax_class = n.tax_class
              AND r.valid_from <= taxed_on AND NOT term.taxed_exempt
            ORDER BY r.valid_from DESC LIMIT 1) r ON true
        WHERE term.origin = 'imported'
    ), credited AS (
        SELECT l.*, div(2 * l.net * 10::numeric ^ term.exponent * unused + days, 2 * days) AS net_units
        FROM lines l WHERE unused = days OR coalesce(l.recurring, true)
    ), shares AS (
        -- The exact tax of a line in units is share / parts.
        SELECT c.*, CASE WHEN c.tax IS NULL THEN c.net_units * coalesce(c.tax_rate, 0)
                         ELSE c.tax * 10::numeric ^ term.exponent * unused END AS share,
               CASE WHEN c.tax IS NULL THEN 1 ELSE days END AS parts
        FROM credited c
    ), ranked AS (
        SELECT s.*, sum(s.share) OVER tax_group AS shares, sum(div(s.share, s.parts)) OVER tax_group AS floors,
               row_number() OVER (PARTITION BY s.tax_class, s.tax_rate
                   ORDER BY mod(s.share, s.parts) DESC, s.line_number) AS place
        FROM shares s
        WINDOW tax_group AS (PARTITION BY s.tax_class, s.tax_rate)
    ), taxed AS (
        SELECT r.*, prepaid.allocated(r.share, r.parts, r.shares, r.floors, r.place) AS tax_units
        FROM ranked r
    )
    SELECT t.line_number, t.description, round(t.net_units / 10::numeric ^ term.exponent, term.exponent),
           t.tax_class, t.tax_rate, round(t.tax_units / 10::numeric ^ term.exponent, term.exponent)
    FROM taxed t
    WHERE t.net_units > 0 OR t.tax_units > 0
    ORDER BY t.line_number;
END $$;

-- Issues the credit note of a term; its id, null when there is nothing to credit. applied is what it
-- pays of invoice applied_to; the rest is owed to the customer, and finance is asked to pay it back.
CREATE OR REPLACE FUNCTION prepaid.issue_credit_note(
    plan bigint, from_date date, taxed_on date, why text, remark text,
    applied_to bigint DEFAULT NULL, applied numeric DEFAULT 0, paid_plan bigint DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    note_id bigint;
BEGIN
    WITH lines AS MATERIALIZED (
        SELECT * FROM prepaid.unused_credit(plan, from_date, taxed_on, paid_plan)
    ), issued AS (
        INSERT INTO prepaid.credit_notes (
            credit_note_number, service_plan_id, invoice_id, customer_id, currency, net, tax, total,
            reason, note, applied_to_invoice_id, applied, issued_on, issued_by)
        SELECT prepaid.next_document_number('CN', prepaid.today()), p.service_plan_id, i.invoice_id,
               p.customer_id, p.currency, l.net, l.tax, l.net + l.tax, why, remark,
               CASE WHEN issue_credit_note.applied > 0 THEN applied_to END,
               issue_credit_note.applied, prepaid.today(), prepaid.actor()
        FROM (SELECT sum(net) AS net, sum(tax) AS tax FROM lines HAVING sum(net + tax) > 0) l
        JOIN prepaid.service_plans p ON p.service_plan_id = plan
        LEFT JOIN prepaid.invoices i ON i.service_plan_id = plan AND i.status = 'Paid'
        RETURNING credit_note_id
    ), with_lines AS (
        INSERT INTO prepaid.credit_note_lines
            (credit_note_id, line_number, description, net, tax_class, tax_rate, tax)
        SELECT n.credit_note_id, l.* FROM issued n CROSS JOIN lines l
    )
    SELECT credit_note_id INTO note_id FROM issued;
    INSERT INTO prepaid.tasks
        (kind, service_plan_id, invoice_id, credit_note_id, assigned_role, opened_on, due_on)
    SELECT 'payment_refund', n.service_plan_id, n.invoice_id, n.credit_note_id,
           prepaid.team_of('payment_refund'), n.issued_on, prepaid.task_due_on(n.issued_on)
    FROM prepaid.credit_notes n WHERE n.credit_note_id = note_id AND n.refund > 0;
    RETURN note_id;
END $$;

-- The teams, and what each may do beside reading what it was given rights to and deciding its own tasks
-- (91_rights.sql, prepaid.team_of). The words are those of the messages: 'somebody may not …'.
CREATE TABLE prepaid.teams (
    team text PRIMARY KEY,
    may text[] NOT NULL
);

INSERT INTO prepaid.teams (team, may) VALUES
    ('finance', ARRAY['assign payments', 'void invoices', 'cancel plans', 'change plans',
        'release holds', 'release holds about money']),
    ('customer_success', ARRAY['cancel plans', 'change plans', 'release holds', 'resend emails',
        'settle emails', 'change a customer''s address', 'erase a customer']),
    ('leadership', ARRAY[]::text[]),
    ('engineering', ARRAY['see all tasks', 'release holds', 'resend emails', 'settle emails',
        'erase a customer']);

GRANT SELECT ON prepaid.teams TO engineering;

-- The people of each team. Not a superuser, not the pipeline's own user and not a team's role itself,
-- whatever they are members of: a decision has one person's name.
CREATE OR REPLACE VIEW prepaid.team_members AS
SELECT r.rolname AS person, t.team, a.email, t.may
FROM prepaid.teams t
JOIN pg_roles r ON pg_has_role(r.oid, t.team::name, 'USAGE')
LEFT JOIN prepaid.desk_accounts a ON a.person = r.rolname
WHERE NOT r.rolsuper AND a.disabled IS NOT TRUE
  AND r.rolname <> 'desk' AND r.rolname NOT IN (SELECT team FROM prepaid.teams)
  AND r.oid <> (SELECT relowner FROM pg_class WHERE oid = 'prepaid.desk_accounts'::regclass);

CREATE FUNCTION prepaid.teams_that_may(what text) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT array(SELECT team FROM prepaid.teams WHERE what = ANY (may) ORDER BY team);
$$;

-- The acting person, if one of their teams may do that; the audit log then names them, also in a session
-- of their own, where prepaid.actor could say anything.
CREATE FUNCTION prepaid.person_who_may(what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    person text := prepaid.acting_person();
    teams text[] := prepaid.teams_that_may(what);
BEGIN
    IF NOT prepaid.is_in_team(person, VARIADIC teams) THEN
        RAISE EXCEPTION '% may not %: not in %', person, what, array_to_string(teams, ' or ');
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
    RETURN person;
END $$;

-- The same for what takes a note that says why.
CREATE FUNCTION prepaid.person_who_says_why(what text, why text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    person text := prepaid.person_who_may(what);
BEGIN
    IF coalesce(why, '') !~ '\S' THEN
        RAISE EXCEPTION 'to % needs a note that says why', what;
    END IF;
    RETURN person;
END $$;

-- Whose task it is.
CREATE FUNCTION prepaid.team_of(kind text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN kind LIKE 'quality%' THEN 'customer_success' ELSE 'finance' END;

ALTER TABLE prepaid.tasks DROP CONSTRAINT tasks_assigned_role_check,
    ADD CONSTRAINT tasks_assigned_role_check CHECK (assigned_role = prepaid.team_of(kind));

-- Until when a task is to be decided. Whoever opens one says so: due_on has no default.
CREATE FUNCTION prepaid.task_due_on(opened_on date) RETURNS date LANGUAGE sql STABLE RETURN
    opened_on + (SELECT task_days FROM prepaid.installation);

-- What a finance officer needs to decide: the invoice, the provider's record beside it, and in words
-- what differs. Of a payment in parts the last record is shown, with the amount of all.
-- UPDATE … SET decision = 'approved' | 'rejected', note = '…' WHERE task_id = …
CREATE OR REPLACE VIEW prepaid.payment_verifications AS
SELECT k.task_id, k.status, k.opened_on, i.invoice_number, p.service_plan_id,
       c.customer_ref, p.customer_name, p.plan_name, p.kind, i.currency, i.net, i.tax, i.total, i.payable,
       r.provider AS record_provider, r.provider_ref AS record_ref, r.status AS record_status,
       coalesce(matched.amount, r.amount) AS record_amount, r.currency AS record_currency,
       r.occurred_at AS record_at, coalesce(matched.records, 0) AS matched_records,
       d.difference IS NULL AS agrees, d.difference,
       k.decision, k.note, k.decided_by, k.decided_at, k.due_on, k.assigned_to,
       CASE WHEN i.payable > l.amount THEN 2 ELSE 1 END AS approvals_needed,
       k.first_approved_by, k.first_approved_at, w.why_not, w.why_not IS NULL AS may_decide
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.service_plans p ON p.service_plan_id = i.service_plan_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
LEFT JOIN LATERAL (
    SELECT count(*) AS records, sum(t.amount) AS amount, max(t.assigned_by) AS assigned_by
    FROM prepaid.transactions t WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched'
    HAVING count(*) > 0
) matched ON true
LEFT JOIN LATERAL (
    SELECT t.* FROM prepaid.transactions t
    WHERE t.invoice_number = i.invoice_number AND matched.records IS NULL
       OR t.invoice_id = i.invoice_id AND t.outcome = 'matched'
    ORDER BY t.status = 'Success' DESC NULLS LAST, t.occurred_at DESC NULLS LAST, t.transaction_id
    LIMIT 1
) r ON true
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN r.transaction_id IS NULL THEN 'no record from a payment provider yet'
        WHEN r.status IS DISTINCT FROM 'Success'
            THEN format('the record says %s', coalesce(r.status, 'nothing'))
        WHEN r.currency IS DISTINCT FROM i.currency
            THEN format('the record is in %s, the invoice in %s', coalesce(r.currency, 'no currency'), i.currency)
        WHEN matched.assigned_by IS NOT NULL
            THEN format('%s was paid and assigned to this invoice by %s', matched.amount, matched.assigned_by)
        WHEN coalesce(matched.amount, r.amount) IS DISTINCT FROM i.payable
            THEN format('the record says %s, the invoice %s', coalesce(r.amount::text, 'nothing'), i.payable)
        WHEN r.customer_ref <> c.customer_ref
            THEN format('the record names customer %s, the invoice %s', r.customer_ref, c.customer_ref)
        WHEN r.outcome <> 'matched' THEN r.outcome_reason
        ELSE (SELECT format('a later record of the same payment says %s', coalesce(t.status, 'nothing'))
              FROM prepaid.transactions m
              JOIN prepaid.transactions t
                  ON hashtextextended(t.provider_ref, 0) = hashtextextended(m.provider_ref, 0)
                 AND t.provider = m.provider AND t.provider_ref = m.provider_ref
              WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched'
                AND t.outcome IS DISTINCT FROM 'superseded' AND t.credit_note_id IS NULL
                AND t.status IS DISTINCT FROM 'Success' AND t.occurred_at >= m.occurred_at
              ORDER BY t.occurred_at DESC LIMIT 1)
    END AS difference
) d
LEFT JOIN prepaid.approval_limits l ON l.currency = i.currency
-- Why the acting person may not approve it; decide_tasks says the same. (The first of two may still
-- reject.)
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN i.status <> 'Open' THEN format('invoice %s is already %s', i.invoice_number, i.status)
        WHEN NOT EXISTS (SELECT FROM prepaid.team_members m
                         WHERE m.team = prepaid.team_of('payment_verification')
                           AND m.person = prepaid.acting_person())
            THEN format('only %s decides on payments', k.assigned_role)
        WHEN k.status = 'Open' AND k.first_approved_by = prepaid.acting_person()
            THEN 'you have approved it already, as the first of two'
        ELSE (SELECT 'you ' || e.what FROM prepaid.four_eyes e
              WHERE e.task_id = k.task_id AND e.person = prepaid.acting_person() LIMIT 1)
    END AS why_not OFFSET 0
) w
WHERE k.kind = 'payment_verification' AND k.status <> 'Withdrawn';

-- Finance says which invoice a parked record pays. The record stays as it was delivered; who assigned
-- it is noted, and match_payments judges it anew. It may be over more than the invoice.
CREATE OR REPLACE FUNCTION prepaid.assign_record(record bigint, to_invoice text, reason text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('assign payments', reason);
    paid prepaid.transactions;
    asked prepaid.invoices;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
    SELECT * INTO paid FROM prepaid.transactions WHERE transaction_id = record FOR UPDATE;
    SELECT * INTO asked FROM prepaid.invoices WHERE invoice_number = to_invoice;
    IF paid.transaction_id IS NULL THEN
        RAISE EXCEPTION 'there is no payment record %', record;
    ELSIF paid.outcome IS DISTINCT FROM 'parked' THEN
        RAISE EXCEPTION 'payment record % is %: only a parked one can be assigned', record,
            coalesce(paid.outcome, 'not judged yet');
    ELSIF prepaid.record_status(paid.status) <> 'Success' THEN
        RAISE EXCEPTION 'payment record % says %: only Success pays', record, paid.status;
    ELSIF asked.invoice_id IS NULL THEN
        RAISE EXCEPTION 'there is no invoice %', to_invoice;
    ELSIF asked.status <> 'Open' THEN
        RAISE EXCEPTION 'invoice % is %: only an open one can be paid', to_invoice, asked.status;
    ELSIF paid.currency IS DISTINCT FROM asked.currency THEN
        RAISE EXCEPTION 'payment record % is in %, invoice % in %', record, paid.currency, to_invoice,
            asked.currency;
    ELSIF EXISTS (SELECT FROM prepaid.transactions t
                  WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(paid.provider_ref, 0)
                    AND t.provider = paid.provider AND t.provider_ref = paid.provider_ref
                    AND t.provider <> '' AND t.provider_ref <> '' AND t.outcome = 'matched'
                    AND t.credit_note_id IS NULL) THEN
        RAISE EXCEPTION 'payment % has paid an invoice already: it pays one only', paid.provider_ref;
    ELSIF NOT coalesce(paid.amount > 0 AND paid.amount < 'Infinity', false) THEN
        RAISE EXCEPTION 'payment record % has the amount %: it pays nothing', record, paid.amount;
    END IF;
    UPDATE prepaid.transactions
    SET assigned_by = person, assigned_note = concat_ws(E'\n', assigned_note, reason),
        invoice_id = asked.invoice_id, outcome = NULL, outcome_reason = NULL
    WHERE transaction_id = record;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, detail, actor, run_id, as_of)
    VALUES ('transaction_assigned', asked.service_plan_id, 'transaction', record, 'parked',
            format('to invoice %s', to_invoice), person, prepaid.run_id(), prepaid.as_of());
END $$;

-- Why a plan can be held, and what a person does about it. A hold that is about money is released by
-- those who may do that alone (prepaid.teams); one that is about an invoice ends when it is voided.
CREATE TABLE prepaid.hold_reasons (
    reason_code text PRIMARY KEY,
    about_money boolean NOT NULL,
    about_invoice boolean NOT NULL,
    advice text NOT NULL
);

INSERT INTO prepaid.hold_reasons (reason_code, about_money, about_invoice, advice) VALUES
    ('no_email', false, false,
     'add the customer''s address (on the plan''s page at the sign-off desk, or customers.csv)'),
    ('no_price', false, false,
     'give the plan a price in that currency that is valid on the term''s first day, or give '
     'the subscription its own'),
    ('no_addon_price', false, false,
     'add the add-on''s price for that term length, currency and day'),
    ('no_tax_rate', false, false,
     'add the rate of that country and tax class; a missing rate is never taken to be 0 %'),
    ('payment_rejected', true, true,
     'clear it up with the customer; releasing opens a new task on the same invoice'),
    ('payment_mismatch', true, true,
     'the matched record no longer fits the invoice: ask the payment provider'),
    ('payment_reversed', true, true,
     'the payment was refunded, charged back or failed after all. The hold ends when a payment '
     'stands again, when the plan is cancelled at once, or, once the term is over, when the '
     'invoice is voided; it cannot be released by hand'),
    ('subscription_cancelled', false, false,
     'the customer left after the term was opened: ask; releasing continues with the term'),
    ('overlapping_term', false, false,
     'cancel one of the two terms'),
    ('change_paid_late', true, false,
     'a change of plan was paid after the days of grace: release it (the days used meanwhile '
     'are given away) or cancel the plan'),
    ('credit_not_paid', true, false,
     'the days that pay for a change of plan were charged back: clear that up, or cancel the '
     'plan'),
    ('credit_differs', true, false,
     'the tax rates at which imported days were credited have been changed: correct them, or '
     'cancel the plan'),
    ('invoice_voided', true, false,
     'finance voided the invoice: release the hold for a new one, or cancel the plan'),
    ('quality_failed', false, false,
     'fix the feature and decide the follow-up task; it does not block the next renewal'),
    ('step_failed', false, false,
     'correct the data that the text names');

ALTER TABLE prepaid.holds ADD FOREIGN KEY (reason_code) REFERENCES prepaid.hold_reasons;
GRANT SELECT ON prepaid.hold_reasons TO engineering;

-- Plans that wait for a person to put something right. The text says what can be done.
CREATE OR REPLACE VIEW prepaid.held_plans AS
SELECT h.hold_id, h.service_plan_id, p.status, c.customer_ref, c.name AS customer_name, l.name AS plan_name,
       i.invoice_number, h.reason_code, h.text, h.held_at,
       (SELECT string_agg(t.team, ', ' ORDER BY t.team) FROM prepaid.teams t
        WHERE CASE WHEN r.about_money THEN 'release holds about money' ELSE 'release holds' END
            = ANY (t.may)) AS released_by_team
FROM prepaid.holds h
JOIN prepaid.hold_reasons r USING (reason_code)
JOIN prepaid.service_plans p USING (service_plan_id)
JOIN prepaid.plans l ON l.plan_id = p.plan_id
JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status <> 'Void'
WHERE h.released_at IS NULL;

-- Releases every live hold of a plan under the acting person's name; the plan continues where it stopped.
-- A released rejection opens a new verification task on the same invoice. Not everybody may release holds
-- about money; a payment that was taken back is not made good by releasing. Returns the holds released.
CREATE OR REPLACE FUNCTION prepaid.release_holds(plan bigint, release_note text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_may('release holds');
    about_money CONSTANT text[] := prepaid.teams_that_may('release holds about money');
    released integer;
    rejected boolean;
    reversed boolean;
    money text;
    unpaid text;
BEGIN
    IF coalesce(release_note, '') !~ '\S' THEN
        RAISE EXCEPTION 'releasing a hold needs a note that says what was done';
    END IF;
    -- What was released is asked of the release itself: a rejection at this very moment is either
    -- among it or stays a hold.
    WITH freed AS (
        UPDATE prepaid.holds h
        SET released_at = clock_timestamp(), released_by = person, note = release_note
        WHERE h.service_plan_id = plan AND h.released_at IS NULL
        RETURNING h.reason_code
    )
    SELECT count(*), bool_or(reason_code = 'payment_rejected'), bool_or(reason_code = 'payment_reversed'),
           string_agg(reason_code, ', ' ORDER BY reason_code) FILTER (WHERE r.about_money)
    INTO released, rejected, reversed, money FROM freed JOIN prepaid.hold_reasons r USING (reason_code);
    IF released = 0 THEN
        RAISE EXCEPTION 'service plan % is not held', plan;
    END IF;
    IF money IS NOT NULL AND NOT prepaid.is_in_team(person, VARIADIC about_money) THEN
        RAISE EXCEPTION '% may not release %: it is about money, only % can', person, money,
            array_to_string(about_money, ' and ');
    END IF;
    SELECT i.invoice_number INTO unpaid FROM prepaid.invoices i
    WHERE i.service_plan_id = plan AND i.status = 'Open' AND reversed;
    IF FOUND THEN
        RAISE EXCEPTION 'the payment of invoice % was reversed, and releasing does not pay it: the hold ends '
            'with a payment that stands, when the plan is cancelled at once, or, once the term is over, '
            'when the invoice is voided', unpaid;
    END IF;
    IF rejected THEN
        UPDATE prepaid.tasks k SET status = 'Withdrawn'
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND k.invoice_id = i.invoice_id
          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
          AND k.decision IS DISTINCT FROM 'approved';
        INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on, due_on)
        SELECT 'payment_verification', plan, i.invoice_id, prepaid.team_of('payment_verification'),
               prepaid.today(), prepaid.task_due_on(prepaid.today())
        FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open' AND i.payable > 0
          AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.invoice_id = i.invoice_id
                          AND k.kind = 'payment_verification' AND k.status <> 'Withdrawn');
    END IF;
    RETURN released;
END $$;

-- Sends failed and unknown mails again under the acting person's name, all or nothing: what was
-- written is sent as it was, the same bytes with the same Message-ID. One that may have arrived gets
-- one more attempt of unknown outcome, no two. Returns how many.
CREATE OR REPLACE FUNCTION prepaid.resend_emails(email_ids bigint[])
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
CREATE OR REPLACE FUNCTION prepaid.settle_emails(email_ids bigint[], why text)
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

-- Sends a failed mail to another address: it is written anew, as another message. The customer gets
-- that address for later mails too.
CREATE OR REPLACE FUNCTION prepaid.correct_email_address(mail bigint, address text)
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
END $$;

-- What comes before plans are cancelled that were never activated (check_plan_transition refuses it
-- otherwise): they leave the queue, nobody is asked to pay or to verify any more, money that has arrived
-- for them goes to finance as a task, their holds end, and what a change of plan changed is taken back.
CREATE FUNCTION prepaid.close_waiting_plans(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- The plan before its place in the queue, as the steps do.
    PERFORM FROM prepaid.service_plans p WHERE p.service_plan_id = ANY (plans)
    ORDER BY p.service_plan_id FOR NO KEY UPDATE;
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = ANY (plans);
    PERFORM prepaid.void_open_invoices(plans);
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = ANY (plans) AND released_at IS NULL;
    PERFORM prepaid.take_back_change(p.service_plan_id) FROM prepaid.service_plans p
    WHERE p.service_plan_id = ANY (plans) AND p.kind = 'change';
END $$;

-- Cancels a plan that was not activated yet. An invoice that is paid already is credited in full. (Its
-- own credit, from a change of plan that now never happens, is no money that came from the customer.)
CREATE OR REPLACE FUNCTION prepaid.cancel_waiting_plan(plan bigint, remark text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    note_id bigint;
BEGIN
    SELECT prepaid.issue_credit_note(plan, p.start_date, prepaid.today(), 'cancellation', remark,
                                     i.invoice_id, i.credit)
    INTO note_id
    FROM prepaid.service_plans p JOIN prepaid.invoices i USING (service_plan_id)
    WHERE p.service_plan_id = plan AND i.status = 'Paid';
    PERFORM prepaid.close_waiting_plans(ARRAY[plan]);
    UPDATE prepaid.service_plans
    SET status = 'Cancelled',
        may_reopen = opened_on IS NOT NULL AND kind <> 'change'
    WHERE service_plan_id = plan;
    RETURN note_id;
END $$;

-- Ends an Active term on a day inside it, or before its first one. What was paid is credited by days;
-- an invoice that is open again (the payment was taken back) is void, and nothing is paid back.
CREATE OR REPLACE FUNCTION prepaid.cut_active_term(plan bigint, cut_on date, remark text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    note_id bigint := prepaid.issue_credit_note(plan, cut_on, prepaid.today(), 'cancellation', remark);
BEGIN
    UPDATE prepaid.service_plans
    SET full_end_date = coalesce(full_end_date, end_date), end_date = cut_on, status = 'Cancelled'
    WHERE service_plan_id = plan;
    DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = plan;
    IF EXISTS (SELECT FROM prepaid.invoices WHERE service_plan_id = plan AND status = 'Open') THEN
        PERFORM prepaid.void_open_invoices(ARRAY[plan]);
    END IF;
    -- Nobody needs to look at its features any more.
    UPDATE prepaid.tasks SET status = 'Withdrawn'
    WHERE service_plan_id = plan AND kind IN ('quality_check', 'quality_follow_up') AND status = 'Open';
    UPDATE prepaid.tasks SET closed_at = clock_timestamp()
    WHERE service_plan_id = plan AND kind IN ('quality_check', 'quality_follow_up')
      AND status = 'Done' AND closed_at IS NULL;
    UPDATE prepaid.holds
    SET released_at = clock_timestamp(), released_by = prepaid.actor(), note = 'the plan was cancelled'
    WHERE service_plan_id = plan AND released_at IS NULL;
    RETURN note_id;
END $$;

-- Cancels a subscription, or one plan of it, for the person who is acting.
-- Returns what happened to each plan: it ends, ended or never begins; on which day; the credit note.
CREATE OR REPLACE FUNCTION prepaid.cancel(
    subscription bigint, plan bigint, at_once boolean, on_date date, why text
) RETURNS TABLE (service_plan_id bigint, outcome text, ends_on date, credit_note_number text,
                 currency text, credited numeric, refund numeric)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
#variable_conflict use_column
DECLARE
    person text := prepaid.person_who_says_why('cancel plans', why);
    today date := prepaid.today();
    s record;
    named record;
    last record;
    term record;
    leaves date;
    earliest date;
    touched bigint[] := '{}';
    main bigint;
    unpaid text;
BEGIN
    -- Records must not be matched to what is being cancelled; then the plans, the later ones first:
    -- step 8 holds a change of plan before it cuts the term before.
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
    SELECT * INTO STRICT s FROM prepaid.subscriptions WHERE subscription_id = subscription FOR NO KEY UPDATE;
    PERFORM FROM prepaid.service_plans p WHERE p.subscription_id = subscription
    ORDER BY p.service_plan_id DESC FOR NO KEY UPDATE;
    SELECT p.* INTO named FROM prepaid.service_plans p WHERE p.service_plan_id = plan;
    SELECT p.* INTO last FROM prepaid.service_plans p
    WHERE p.subscription_id = subscription AND p.activated_on IS NOT NULL
    ORDER BY p.end_date DESC, p.start_date DESC LIMIT 1;

    IF named.status IN ('Expired', 'Cancelled') THEN
        SELECT i.invoice_number INTO unpaid FROM prepaid.invoices i
        WHERE i.service_plan_id = plan AND i.status = 'Open';
        RAISE EXCEPTION 'service plan % is % already%', plan, named.status, CASE
            WHEN unpaid IS NULL THEN ''
            ELSE format('; its invoice %s is open: a new payment, or finance voids it (prepaid invoices '
                        'void)', unpaid) END;
    ELSIF named.status IN ('Pending', 'Processing') THEN
        -- Taking back a change leaves the subscription as it was before it.
        leaves := CASE WHEN named.kind <> 'change' THEN coalesce(last.end_date, named.planned_start) END;
        touched := ARRAY[plan];
        main := plan;
    ELSE
        IF at_once AND on_date > today THEN
            RAISE EXCEPTION '% is in the future: cancel on that day, or at the end of the term', on_date;
        ELSIF at_once THEN
            -- A term that a change has cut ends where it ends; its other days are credited already.
            SELECT coalesce(array_agg(p.service_plan_id ORDER BY p.start_date)
                                FILTER (WHERE p.full_end_date IS NULL), '{}'),
                   min(p.start_date) FILTER (WHERE p.full_end_date IS NULL), min(p.start_date)
            INTO touched, leaves, earliest
            FROM prepaid.service_plans p
            WHERE p.subscription_id = subscription AND p.end_date > coalesce(on_date, today)
              AND (p.status = 'Active' OR p.status = 'Expired' AND p.full_end_date IS NOT NULL)
              AND (plan IS NULL OR p.start_date >= named.start_date);
            IF on_date < earliest THEN
                RAISE EXCEPTION 'the term starts on %: it can be cancelled from that day on', earliest;
            END IF;
            PERFORM prepaid.require_standing_payments(touched);
            leaves := greatest(leaves, CASE WHEN leaves IS NOT NULL THEN coalesce(on_date, today) END);
        ELSIF last.service_plan_id <> plan THEN
            RAISE EXCEPTION 'service plan % is followed by service plan % (% to %), which is paid: '
                'cancel that one at once, or the subscription',
                plan, last.service_plan_id, last.start_date, last.end_date;
        END IF;
        touched := touched || ARRAY(
            SELECT p.service_plan_id FROM prepaid.service_plans p
            WHERE p.subscription_id = subscription AND p.status IN ('Pending', 'Processing')
            ORDER BY p.start_date);
        leaves := coalesce(leaves, last.end_date, (
            SELECT min(p.planned_start) FROM prepaid.service_plans p
            WHERE p.service_plan_id = ANY (touched)), s.started_on);
        main := CASE WHEN leaves = last.end_date THEN last.service_plan_id ELSE touched[1] END;
        IF cardinality(touched) = 0 AND s.cancelled_on <= leaves THEN
            RAISE EXCEPTION 'subscription % is already cancelled, as of %',
                s.subscription_ref, s.cancelled_on;
        END IF;
    END IF;

    INSERT INTO prepaid.requests (kind, subscription_id, service_plan_id, asked_on, effective_on, note, asked_by)
    VALUES ('cancellation', subscription, main, today, leaves, why, person);
    UPDATE prepaid.subscriptions SET cancelled_on = least(cancelled_on, leaves)
    WHERE subscription_id = subscription AND least(cancelled_on, leaves) IS DISTINCT FROM cancelled_on;

    FOR term IN SELECT p.* FROM prepaid.service_plans p WHERE p.service_plan_id = ANY (touched)
                ORDER BY p.start_date LOOP
        IF term.status = 'Active' THEN
            PERFORM prepaid.cut_active_term(term.service_plan_id, greatest(term.start_date, leaves), why);
            PERFORM prepaid.order_cancellation_mail(term.service_plan_id);
        ELSE
            PERFORM prepaid.cancel_waiting_plan(term.service_plan_id, why);
        END IF;
    END LOOP;
    IF main <> ALL (touched) AND last.status = 'Active' AND last.end_date > today THEN
        PERFORM prepaid.order_cancellation_mail(main);
    END IF;

    RETURN QUERY
    SELECT p.service_plan_id, CASE WHEN p.status <> 'Cancelled' THEN 'ends'
               WHEN p.activated_on IS NOT NULL THEN 'ended' ELSE 'never begins' END,
           CASE WHEN p.activated_on IS NOT NULL THEN p.end_date END, n.credit_note_number, p.currency,
           n.total, n.refund
    FROM prepaid.service_plans p LEFT JOIN prepaid.credit_notes n USING (service_plan_id)
    WHERE p.service_plan_id = ANY (main || touched) ORDER BY p.start_date, p.service_plan_id;
END $$;

-- Changes the plan of a subscription for the person who is acting: at the next
-- renewal (on_date null), or on a day inside the running term. Then a plan of kind change is
-- opened; when it is paid, step 8 cuts the running term where it starts. Returns the plan that was
-- opened, or the waiting renewal that the change meets.
CREATE OR REPLACE FUNCTION prepaid.change_plan(
    subscription bigint, new_plan text, new_price numeric, new_addons text[], on_date date, why text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('change plans', why);
    today date := prepaid.today();
    s record;
    running record;
    waiting record;
    later record;
    before jsonb;
    after jsonb;
    opened bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('prepaid.match_payments'));
    SELECT sub.*, c.currency INTO STRICT s
    FROM prepaid.subscriptions sub JOIN prepaid.customers c USING (customer_id)
    WHERE sub.subscription_id = subscription FOR NO KEY UPDATE OF sub;
    PERFORM FROM prepaid.service_plans p WHERE p.subscription_id = subscription
    ORDER BY p.service_plan_id DESC FOR NO KEY UPDATE;
    SELECT p.* INTO waiting FROM prepaid.service_plans p
    WHERE p.subscription_id = subscription AND p.status IN ('Pending', 'Processing')
    ORDER BY p.kind = 'change' DESC, p.service_plan_id DESC LIMIT 1;
    SELECT p.* INTO running FROM prepaid.service_plans p
    WHERE p.subscription_id = subscription AND p.status = 'Active'
      AND p.start_date <= coalesce(on_date, today) AND p.end_date > coalesce(on_date, today);
    before := prepaid.subscription_state(subscription);
    after := prepaid.asked_state(subscription, new_plan, new_price, new_addons,
                                 coalesce(on_date, running.end_date, today));

    IF after = before THEN
        RAISE EXCEPTION 'subscription % already has that plan, price and add-ons', s.subscription_ref;
    ELSIF waiting.kind = 'change' THEN
        RAISE EXCEPTION 'service plan % changes subscription % already, from % on: cancel it first',
            waiting.service_plan_id, s.subscription_ref, waiting.planned_start;
    END IF;
    IF on_date IS NOT NULL THEN
        SELECT p.* INTO later FROM prepaid.service_plans p
        WHERE p.subscription_id = subscription AND p.activated_on IS NOT NULL
          AND p.start_date >= running.end_date LIMIT 1;
        IF on_date < today THEN
            RAISE EXCEPTION '% has passed: a plan can be changed from today on, %', on_date, today;
        ELSIF running.service_plan_id IS NULL THEN
            RAISE EXCEPTION 'no term of subscription % runs on %: change it at the renewal instead',
                s.subscription_ref, on_date;
        ELSIF running.start_date = on_date THEN
            RAISE EXCEPTION 'the term of subscription % starts on %: change it from the next day on, or '
                'cancel it at once (all of it is refunded) and buy again', s.subscription_ref, on_date;
        ELSIF s.cancelled_on IS NOT NULL THEN
            RAISE EXCEPTION 'subscription % is cancelled as of %: undo that first (import '
                'subscriptions.csv), or wait for the end', s.subscription_ref, s.cancelled_on;
        ELSIF later.service_plan_id IS NOT NULL THEN
            RAISE EXCEPTION 'the next term (service plan %, % to %) is already paid: change it from % on, '
                'or cancel it at once first (all of it is refunded)', later.service_plan_id,
                later.start_date, later.end_date, later.start_date + 1;
        ELSIF running.origin = 'pipeline' AND NOT EXISTS (
            SELECT FROM prepaid.invoices i
            WHERE i.service_plan_id = running.service_plan_id AND i.status = 'Paid') THEN
            RAISE EXCEPTION 'the payment of the running term (service plan %) was reversed: clear that '
                'up first', running.service_plan_id;
        ELSIF running.currency <> s.currency THEN
            RAISE EXCEPTION 'the running term is in %, subscription % now in %: change it at the renewal',
                running.currency, s.subscription_ref, s.currency;
        END IF;
        PERFORM prepaid.require_standing_payments(ARRAY[running.service_plan_id]);
        -- Says now what step 4 would fail for: a tax rate that is not known.
        PERFORM prepaid.unused_credit(running.service_plan_id, on_date, today);
    END IF;
    PERFORM prepaid.set_subscription_state(subscription, after);
    -- Step 0 may be opening the renewal at this moment: then the insert waits for it, does nothing, and
    -- the renewal is there to be cancelled.
    FOR attempt IN 1..3 LOOP
        EXIT WHEN on_date IS NULL OR opened IS NOT NULL;
        PERFORM prepaid.cancel_waiting_plan(p.service_plan_id, why) FROM prepaid.service_plans p
        WHERE p.subscription_id = subscription AND p.status IN ('Pending', 'Processing');
        INSERT INTO prepaid.service_plans (
            subscription_id, customer_id, plan_id, previous_plan_id, origin, kind, status, start_date,
            end_date, planned_start, anchor_date, term_months, term_days, opened_on, currency)
        SELECT subscription, s.customer_id, l.plan_id, running.service_plan_id, 'pipeline', 'change',
               'Pending', on_date, prepaid.term_end(on_date, on_date, l.term_months, l.term_days),
               on_date, on_date, l.term_months, l.term_days, today, s.currency
        FROM prepaid.plans l WHERE l.plan_id = (after ->> 'plan_id')::bigint
        ON CONFLICT DO NOTHING
        RETURNING service_plan_id INTO opened;
    END LOOP;
    IF on_date IS NOT NULL AND opened IS NULL THEN
        RAISE EXCEPTION 'another service plan followed % at this moment: check, and try again',
            running.service_plan_id;
    END IF;
    INSERT INTO prepaid.requests (kind, subscription_id, service_plan_id, asked_on, effective_on, note,
                                  asked_by, before, after)
    VALUES ('change', subscription, opened, today, on_date, why, person, before, after);
    RETURN coalesce(opened, waiting.service_plan_id);
END $$;

-- Open tasks per team and kind, for the acting person's own teams (some see all).
CREATE OR REPLACE VIEW prepaid.desk_overview AS
SELECT k.assigned_role AS team, k.kind, count(*) AS open, min(k.opened_on) AS oldest,
       count(*) FILTER (WHERE k.due_on < prepaid.today()) AS overdue,
       count(*) FILTER (WHERE k.assigned_to = prepaid.acting_person()) AS mine
FROM prepaid.tasks k
WHERE k.status = 'Open' AND EXISTS (
    SELECT FROM prepaid.team_members m
    WHERE m.person = prepaid.acting_person()
      AND (m.team = k.assigned_role OR 'see all tasks' = ANY (m.may)))
GROUP BY k.assigned_role, k.kind;

-- Every sign-off that was ever made, for the acting person's own teams (some see all).
CREATE OR REPLACE VIEW prepaid.decisions AS
SELECT s.sign_off_id, s.task_id, k.kind, k.assigned_role AS team, k.service_plan_id, c.customer_ref,
       i.invoice_number, i.currency, i.payable, s.decision, s.note, s.decided_by, s.decided_at
FROM prepaid.sign_offs s
JOIN prepaid.tasks k USING (task_id)
LEFT JOIN prepaid.service_plans p ON p.service_plan_id = k.service_plan_id
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
LEFT JOIN prepaid.invoices i ON i.invoice_id = k.invoice_id
WHERE EXISTS (SELECT FROM prepaid.team_members m
              WHERE m.person = prepaid.acting_person()
                AND (m.team = k.assigned_role OR 'see all tasks' = ANY (m.may)));

-- Gives the customer of a plan an address, for the person who is acting: what a plan that is held for want of one needs. Plans whose details were taken before keep theirs.
CREATE OR REPLACE FUNCTION prepaid.set_customer_email(plan bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_who_says_why('change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not a valid email address', address;
    END IF;
    UPDATE prepaid.customers c SET email = address
    FROM prepaid.service_plans p WHERE p.service_plan_id = plan AND c.customer_id = p.customer_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service plan %', plan;
    END IF;
END $$;

-- Erases a customer for the acting person; all or nothing. Returns the Message-IDs of the mails whose
-- bytes are gone: where they were written as files, those are the caller's to delete.
CREATE OR REPLACE FUNCTION prepaid.erase_customer(ref text, why text)
RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_who_says_why('erase a customer', why);
    customer bigint;
    refusal text;
    plan_ids bigint[];
    record_ids bigint[];
    task_ids bigint[];
    message_ids text[];
BEGIN
    SELECT c.customer_id INTO customer FROM customers c WHERE c.customer_ref = ref FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no customer %', ref;
    END IF;
    -- No term is opened meanwhile.
    PERFORM FROM subscriptions s WHERE s.customer_id = customer ORDER BY s.subscription_id FOR UPDATE;
    refusal := erasure_refusal(customer);
    IF refusal IS NOT NULL THEN
        RAISE EXCEPTION 'customer % cannot be erased: %', ref, refusal;
    END IF;
    plan_ids := ARRAY(SELECT p.service_plan_id FROM service_plans p WHERE p.customer_id = customer);
    record_ids := ARRAY(SELECT r.transaction_id FROM records_of(customer) r);
    task_ids := ARRAY(SELECT k.task_id FROM tasks k WHERE k.service_plan_id = ANY (plan_ids)
                      OR k.transaction_id = ANY (record_ids));
    INSERT INTO erasures (customer_id, reason, erased_by, erased_on)
    VALUES (customer, why, person, prepaid.today());

    UPDATE customers c SET name = 'erased customer ' || customer, email = NULL
    WHERE c.customer_id = customer;
    UPDATE service_plans p SET email = NULL,
        customer_name = CASE WHEN p.customer_name IS NOT NULL THEN 'erased customer ' || customer END
    WHERE p.service_plan_id = ANY (plan_ids);
    WITH erased AS (
        UPDATE emails m SET recipient = 'erased@invalid',
            content = CASE WHEN m.content IS NOT NULL THEN ''::bytea END,
            -- One that failed is not sent again.
            status = CASE m.status WHEN 'failed' THEN 'dropped' ELSE m.status END,
            last_error = CASE m.status WHEN 'failed' THEN 'the customer was erased' END
        WHERE m.service_plan_id = ANY (plan_ids)
        RETURNING m.message_id
    )
    SELECT coalesce(array_agg(e.message_id) FILTER (WHERE e.message_id IS NOT NULL), '{}')
    INTO message_ids FROM erased e;
    -- Null and not a word: a later record of the same payment is judged with these.
    UPDATE transactions t
    SET customer_ref = CASE WHEN t.customer_ref = ref THEN ref END,
        invoice_number = CASE WHEN EXISTS (SELECT FROM invoices i WHERE i.invoice_number = t.invoice_number)
                              THEN t.invoice_number END,
        assigned_note = CASE WHEN t.assigned_note IS NOT NULL THEN '(erased)' END,
        outcome_reason = CASE WHEN t.outcome_reason IS NOT NULL THEN '(erased)' END
    WHERE t.transaction_id = ANY (record_ids);
    UPDATE holds h SET text = '(erased)', note = CASE WHEN h.note IS NOT NULL THEN '(erased)' END
    WHERE h.service_plan_id = ANY (plan_ids);
    UPDATE tasks k SET note = '(erased)' WHERE k.task_id = ANY (task_ids) AND k.note IS NOT NULL;
    UPDATE sign_offs s SET note = '(erased)' WHERE s.task_id = ANY (task_ids) AND s.note IS NOT NULL;
    UPDATE task_assignments a SET note = '(erased)'
    WHERE a.task_id = ANY (task_ids) AND a.note IS NOT NULL;
    UPDATE requests q SET note = '(erased)'
    WHERE q.subscription_id IN (SELECT s.subscription_id FROM subscriptions s
                                WHERE s.customer_id = customer);
    UPDATE credit_notes n SET note = '(erased)' WHERE n.customer_id = customer AND n.note IS NOT NULL;

    INSERT INTO audit_log (event, entity, entity_id, after, actor, run_id, as_of)
    VALUES ('customer_erased', 'customer', customer, 'erased', person, prepaid.run_id(), prepaid.as_of());
    RETURN message_ids;
END $$;

-- What these say when they refuse.

CREATE OR REPLACE FUNCTION prepaid.only_people_sign() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
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

CREATE OR REPLACE FUNCTION prepaid.require_emails(email_ids bigint[], states text[], action text)
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

CREATE OR REPLACE FUNCTION prepaid.require_standing_payments(plans bigint[]) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    unjudged text;
    doubtful record;
BEGIN
    WITH RECURSIVE grounds AS (
        SELECT i.invoice_id FROM prepaid.invoices i
        WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void'
        UNION
        SELECT n.invoice_id FROM grounds g JOIN prepaid.credit_notes n ON n.applied_to_invoice_id = g.invoice_id
        WHERE n.invoice_id IS NOT NULL
    )
    SELECT min(i.invoice_number) INTO unjudged
    FROM grounds JOIN prepaid.invoices i USING (invoice_id)
    WHERE EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE t.outcome IS NULL AND (t.invoice_number = i.invoice_number OR t.invoice_id = i.invoice_id
            OR EXISTS (SELECT FROM prepaid.transactions m
                       WHERE m.invoice_id = i.invoice_id AND m.provider = t.provider
                         AND m.provider_ref = t.provider_ref)));
    IF unjudged IS NOT NULL THEN
        RAISE EXCEPTION 'payment records of invoice % are not judged yet: run ''prepaid drain'' or wait a '
            'minute', unjudged;
    END IF;

    WITH RECURSIVE grounds AS (
        SELECT i.invoice_id, p.service_plan_id, p.end_date, false AS earlier
        FROM prepaid.invoices i JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE i.service_plan_id = ANY (plans) AND i.status <> 'Void'
        UNION
        SELECT n.invoice_id, g.service_plan_id, g.end_date, true
        FROM grounds g JOIN prepaid.credit_notes n ON n.applied_to_invoice_id = g.invoice_id
        WHERE n.invoice_id IS NOT NULL
    )
    SELECT g.*, i.invoice_number, i.status, i.credit, i.currency INTO doubtful
    FROM grounds g JOIN prepaid.invoices i USING (invoice_id)
    WHERE i.status <> 'Paid' AND (g.earlier OR i.credit > 0)
    ORDER BY g.service_plan_id, g.earlier DESC, g.invoice_id LIMIT 1;
    IF doubtful.earlier THEN
        RAISE EXCEPTION 'service plan % was paid with credit of invoice %, whose payment was reversed: '
            '%wait for the end of the term, %', doubtful.service_plan_id, doubtful.invoice_number,
            CASE doubtful.status WHEN 'Open' THEN 'have it paid again first, or ' ELSE '' END,
            doubtful.end_date;
    ELSIF NOT doubtful.earlier THEN
        RAISE EXCEPTION 'the payment of invoice % was reversed, and its credit of % % would be lost: '
            'have it paid again first, or wait for the end of the term, %', doubtful.invoice_number,
            doubtful.credit, doubtful.currency, doubtful.end_date;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION revenue.measured(for_month date, OUT month date, OUT as_of date, OUT day date)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    month := date_trunc('month', for_month::timestamp)::date;
    SELECT m.as_of INTO as_of FROM revenue.months m WHERE m.month = measured.month;
    IF as_of IS NULL THEN
        RAISE EXCEPTION 'there are no figures for %: run prepaid backfill % %',
            to_char(month, 'YYYY-MM'), to_char(month, 'YYYY-MM'), to_char(month, 'YYYY-MM');
    END IF;
    day := least(as_of, (month + interval '1 month')::date - 1);
END $$;

CREATE OR REPLACE FUNCTION prepaid.erasure_refusal(customer bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT reason FROM (
        SELECT 1 AS place, format('was already erased on %s by %s', e.erased_on, e.erased_by) AS reason
        FROM prepaid.erasures e WHERE e.customer_id = customer
        UNION ALL
        SELECT 2, format('service plan %s is %s: cancel it, or wait until it has ended',
                         p.service_plan_id, p.status)
        FROM prepaid.service_plans p
        WHERE p.customer_id = customer AND p.status IN ('Pending', 'Processing', 'Active')
        UNION ALL
        SELECT 3, format('subscription %s continues: cancel it first', s.subscription_ref)
        FROM prepaid.subscriptions s
        WHERE s.customer_id = customer AND (s.cancelled_on IS NULL OR s.cancelled_on > prepaid.today())
          AND (s.auto_renew OR NOT EXISTS (SELECT FROM prepaid.service_plans p
                                           WHERE p.subscription_id = s.subscription_id))
        UNION ALL
        SELECT 4, format('invoice %s is open: it has to be paid or voided', i.invoice_number)
        FROM prepaid.invoices i WHERE i.customer_id = customer AND i.status = 'Open'
        UNION ALL
        SELECT 5, format('task %s (%s) is open: decide it first', k.task_id, k.kind)
        FROM prepaid.tasks k
        WHERE k.status = 'Open' AND (
            k.service_plan_id IN (SELECT service_plan_id FROM prepaid.service_plans
                                  WHERE customer_id = customer)
            OR k.invoice_id IN (SELECT invoice_id FROM prepaid.invoices WHERE customer_id = customer)
            OR k.transaction_id IN (SELECT transaction_id FROM prepaid.records_of(customer)))
        UNION ALL
        SELECT 6, format('service plan %s is held (%s): release it first', h.service_plan_id, h.reason_code)
        FROM prepaid.holds h JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE p.customer_id = customer AND h.released_at IS NULL
        UNION ALL
        SELECT 7, format('email %s is %s: it has to arrive first', m.email_id, m.status)
        FROM prepaid.emails m JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE p.customer_id = customer AND m.status IN ('pending', 'sending', 'unknown')
        UNION ALL
        SELECT 8, format('payment record %s is not judged yet', t.transaction_id)
        FROM prepaid.transactions t
        WHERE t.transaction_id IN (SELECT transaction_id FROM prepaid.records_of(customer))
          AND (t.outcome IS NULL OR t.outcome = 'waiting')
    ) refusals ORDER BY place, reason LIMIT 1
$$;
