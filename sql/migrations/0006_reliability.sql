-- The audit log is sealed and anchored, mails know that an attempt's outcome is unknown, and a
-- customer's personal data can be erased.

-- Seals of the audit log. What is in it already is sealed by the first call.

-- The audit log is hash-chained by seals: after a batch, a job or a decision one seal over the entries
-- that are committed and not sealed yet, with the hash of the seal before it. Writing an entry waits for
-- nobody. docs/audit.md describes the format; sql/audit/verify.sql recomputes it.

CREATE TABLE prepaid.audit_seals (
    seal_number bigint PRIMARY KEY CHECK (seal_number > 0),
    sealed_at timestamptz NOT NULL,
    -- The highest id that this seal or one before it has looked at.
    sealed_through bigint NOT NULL,
    entries integer NOT NULL CHECK (entries > 0),
    -- The ids of the entries, in whose order they are hashed. Ids below the sealed_through of the seal
    -- before are entries that committed later than others with higher ids.
    ids int8multirange NOT NULL,
    -- The ids up to sealed_through that transactions may still write. Every other one that is not in
    -- a seal stays empty for good: an entry there was put in afterwards.
    awaited int8multirange NOT NULL,
    -- sha256 over the entries' sha256 hashes; and the first 8 bytes of each of these, by which a
    -- changed entry is named.
    entries_hash bytea NOT NULL CHECK (length(entries_hash) = 32),
    digests bytea NOT NULL CHECK (length(digests) = 8 * entries),
    previous_hash bytea NOT NULL CHECK (length(previous_hash) = 32),
    seal_hash bytea NOT NULL CHECK (length(seal_hash) = 32)
);
-- Hashes cannot be compressed; uncompressed, eight bytes are read without the others.
ALTER TABLE prepaid.audit_seals ALTER COLUMN digests SET STORAGE EXTERNAL;
-- In which seal an entry is: the first that has looked as far, or a later one.
CREATE INDEX audit_seals_by_sealed_through ON prepaid.audit_seals (sealed_through, seal_number);
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
ALTER TABLE prepaid.audit_seals ENABLE ALWAYS TRIGGER audit_seals_append_only;

-- Which transactions may still write the awaited ids. It is no part of the chain: after a restart or
-- in another cluster none of them exists any more, and the ids are given up by the next seal.
CREATE TABLE prepaid.audit_awaited (
    ids int8multirange NOT NULL,
    writers text[] NOT NULL
);

-- Seals up to 50,000 entries and returns how many; null when somebody else is sealing at this moment
-- (or waits, when asked to). One seal per call, so that the memory of both sealing and verifying has
-- an upper end. To be called in a transaction of its own, which reads what is committed.
--
-- Ids are taken before the commit, so a lower one may still be missing. The order of the four reads is
-- what makes sure that none is skipped: whoever has taken an id up to sealed_through had locked the
-- table for writing before the first read, and is either among the writers of the second or has ended
-- before the third, which then sees its entry unless it was rolled back.
CREATE FUNCTION prepaid.seal_audit_log(wait boolean DEFAULT false)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = prepaid, pg_temp SET enable_seqscan TO off AS $$
DECLARE
    the_lock CONSTANT bigint := hashtext('prepaid.seal_audit_log');
    last prepaid.audit_seals;
    made prepaid.audit_seals;
    writing text[];
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the audit log is sealed by READ COMMITTED transactions only';
    END IF;
    IF wait THEN
        PERFORM pg_advisory_xact_lock(the_lock);
    ELSIF NOT pg_try_advisory_xact_lock(the_lock) THEN
        RETURN NULL;
    END IF;
    SELECT * INTO last FROM audit_seals s ORDER BY s.seal_number DESC LIMIT 1;
    last.sealed_through := coalesce(last.sealed_through, 0);
    -- An id that was never given out would leave all others below it.
    SELECT coalesce(max(next.audit_id), last.sealed_through) INTO made.sealed_through
    FROM (SELECT a.audit_id FROM audit_log a
          WHERE a.audit_id > last.sealed_through
            AND a.audit_id <= (SELECT q.last_value FROM audit_log_audit_id_seq q)
          ORDER BY a.audit_id LIMIT 50000) next;

    SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{}') INTO writing
    FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.relation = 'prepaid.audit_log'::regclass
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.mode = 'RowExclusiveLock' AND l.pid IS DISTINCT FROM pg_backend_pid();

    SELECT count(*), range_agg(int8range(entry.audit_id, entry.audit_id, '[]')),
           sha256(string_agg(entry.hash, '' ORDER BY entry.audit_id)),
           string_agg(substr(entry.hash, 1, 8), '' ORDER BY entry.audit_id)
    INTO made.entries, made.ids, made.entries_hash, made.digests
    FROM unnest(coalesce(last.awaited, '{}')
                + int8multirange(int8range(last.sealed_through, made.sealed_through, '(]'))) span
    CROSS JOIN LATERAL (
        SELECT a.audit_id, sha256(record_send(ROW(
            a.audit_id, a.at, convert_to(a.event, 'UTF8'), a.service_plan_id,
            convert_to(a.entity, 'UTF8'), a.entity_id, convert_to(a.before, 'UTF8'),
            convert_to(a.after, 'UTF8'), convert_to(a.detail, 'UTF8'), convert_to(a.actor, 'UTF8'),
            convert_to(a.run_id, 'UTF8'), a.as_of))) AS hash
        FROM audit_log a
        WHERE a.audit_id >= lower(span) AND a.audit_id < upper(span)
        ORDER BY a.audit_id) entry;
    IF made.entries = 0 THEN
        RETURN 0;
    END IF;

    DELETE FROM audit_awaited w WHERE NOT w.writers && writing;
    UPDATE audit_awaited w SET ids = w.ids - made.ids WHERE w.ids && made.ids;
    INSERT INTO audit_awaited (ids, writers)
    SELECT gaps.ids, writing
    FROM (SELECT int8multirange(int8range(last.sealed_through, made.sealed_through, '(]'))
                 - made.ids AS ids) gaps
    WHERE NOT isempty(gaps.ids) AND cardinality(writing) > 0;

    made.seal_number := coalesce(last.seal_number, 0) + 1;
    made.sealed_at := clock_timestamp();
    made.awaited := coalesce((SELECT range_agg(w.ids) FROM audit_awaited w), '{}');
    made.previous_hash := coalesce(last.seal_hash, decode(repeat('00', 32), 'hex'));
    made.seal_hash := sha256(record_send(ROW(
        made.seal_number, made.sealed_at, made.sealed_through, made.entries,
        convert_to(made.ids::text, 'UTF8'), convert_to(made.awaited::text, 'UTF8'),
        made.entries_hash, made.digests, made.previous_hash)));
    INSERT INTO audit_seals VALUES (made.*);
    RETURN made.entries;
END $$;

GRANT SELECT ON prepaid.audit_seals, prepaid.audit_awaited TO engineering;
REVOKE UPDATE, DELETE, TRUNCATE ON prepaid.audit_seals FROM CURRENT_USER;
REVOKE EXECUTE ON FUNCTION prepaid.seal_audit_log FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.seal_audit_log TO desk;

-- What the audit log lacked: that a quality decision was acted on. And what it had too much: people's
-- words on an assigned payment, which are on the record now, and those of providers (entries that are
-- there stay).

ALTER TABLE prepaid.transactions ADD COLUMN assigned_note text;

-- Finance says which invoice a parked record pays. The record stays as it was delivered; who assigned
-- it is noted, and match_payments judges it anew. It may be over more than the invoice.
CREATE OR REPLACE FUNCTION prepaid.assign_record(record bigint, to_invoice text, reason text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    paid prepaid.transactions;
    asked prepaid.invoices;
BEGIN
    IF NOT prepaid.is_in_team(person, 'finance') THEN
        RAISE EXCEPTION '% may not assign payments: only finance can', person;
    END IF;
    IF coalesce(reason, '') !~ '\S' THEN
        RAISE EXCEPTION 'assigning a payment needs a note that says why';
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
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
        RAISE EXCEPTION 'payment record % is over %: nothing that pays', record, paid.amount;
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

-- Which open invoices a parked payment may be meant for. A help for finance; nothing acts on it. By the
-- customer or by the number: never by the amount alone, which many invoices share. (NOT MATERIALIZED: who
-- asks about some records does not wait for the others.)
CREATE OR REPLACE VIEW prepaid.payment_suggestions AS
WITH parked AS NOT MATERIALIZED (
    SELECT t.* FROM prepaid.tasks k JOIN prepaid.transactions t USING (transaction_id)
    WHERE k.kind = 'payment_review' AND k.status = 'Open' AND t.outcome = 'parked'
      AND t.status = 'Success'
), candidates AS (
    SELECT t.transaction_id, i.invoice_id, NULL AS slip
    FROM parked t
    JOIN prepaid.customers c USING (customer_ref)
    JOIN prepaid.invoices i ON i.customer_id = c.customer_id AND i.status = 'Open'
    UNION ALL
    SELECT t.transaction_id, i.invoice_id, meant.slip
    FROM parked t
    CROSS JOIN LATERAL prepaid.meant_numbers(t.invoice_number) meant
    JOIN prepaid.invoices i ON prepaid.plain_number(i.invoice_number) = meant.plain AND i.status = 'Open'
)
SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number AS record_invoice_number,
       t.amount, t.currency, t.customer_ref AS record_customer_ref, t.occurred_at, t.outcome_reason,
       i.invoice_number, i.service_plan_id, c.customer_ref, c.name AS customer_name, i.issued_on,
       concat_ws('; ', 'same amount', CASE WHEN t.customer_ref = c.customer_ref THEN 'same customer' END,
                 'the number: ' || found.slip) AS because
FROM (SELECT transaction_id, invoice_id, max(slip) AS slip FROM candidates GROUP BY 1, 2) found
JOIN parked t USING (transaction_id)
JOIN prepaid.invoices i ON i.invoice_id = found.invoice_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
WHERE i.payable = t.amount AND i.currency = t.currency
  AND i.invoice_number IS DISTINCT FROM t.invoice_number
  AND NOT EXISTS (SELECT FROM prepaid.transactions m
                  WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched');

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
            THEN format('the record is over %s, the invoice over %s', coalesce(r.amount::text, 'nothing'), i.payable)
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
                         WHERE m.team = 'finance' AND m.person = prepaid.acting_person())
            THEN 'only finance decides on payments'
        WHEN k.status = 'Open' AND k.first_approved_by = prepaid.acting_person()
            THEN 'you have approved it already, as the first of two'
        ELSE (SELECT 'you ' || e.what FROM prepaid.four_eyes e
              WHERE e.task_id = k.task_id AND e.person = prepaid.acting_person() LIMIT 1)
    END AS why_not OFFSET 0
) w
WHERE k.kind = 'payment_verification' AND k.status <> 'Withdrawn';

CREATE OR REPLACE VIEW prepaid.plan_events AS
SELECT a.service_plan_id, a.at, a.event, a.actor,
       concat_ws(' ', a.before || ' ->',
           CASE a.event WHEN 'hold_released' THEN 'released' ELSE a.after END,
           '(' || CASE a.event WHEN 'hold_released' THEN h.note ELSE a.detail END || ')',
           CASE a.event WHEN 'hold_placed' THEN h.text END, q.note, r.assigned_note) AS what,
       1 AS place, a.audit_id AS id
FROM prepaid.audit_log a
LEFT JOIN prepaid.holds h ON a.entity = 'hold' AND h.hold_id = a.entity_id
LEFT JOIN prepaid.requests q ON a.entity = 'request' AND q.request_id = a.entity_id
LEFT JOIN prepaid.transactions r ON a.event = 'transaction_assigned' AND r.transaction_id = a.entity_id
UNION ALL
SELECT k.service_plan_id, k.opened_at, 'task_opened', 'pipeline',
       format('task %s: %s for %s, due on %s', k.task_id, k.kind, k.assigned_role, k.due_on), 2, k.task_id
FROM prepaid.tasks k
UNION ALL
SELECT k.service_plan_id, s.decided_at, 'sign_off', s.decided_by,
       concat_ws(' ', format('task %s: %s', s.task_id, s.decision),
           CASE WHEN s.note IS NOT NULL THEN '(' || s.note || ')' END), 3, s.sign_off_id
FROM prepaid.sign_offs s JOIN prepaid.tasks k USING (task_id)
UNION ALL
SELECT i.service_plan_id, t.received_at, 'payment_record', coalesce(t.provider, 'unknown provider'),
       concat_ws(' ', t.provider_ref, t.status, t.amount, t.currency, 'for', t.invoice_number), 4,
       t.transaction_id
FROM prepaid.transactions t JOIN prepaid.invoices i ON i.invoice_number = t.invoice_number
UNION ALL
SELECT e.service_plan_id, e.created_at, 'email_ordered', 'pipeline',
       format('%s to %s: %s', e.template, e.recipient, e.status), 5, e.email_id
FROM prepaid.emails e
UNION ALL
SELECT k.service_plan_id, a.assigned_at, 'task_assigned', a.assigned_by,
       concat_ws(' ', format('task %s: %s', a.task_id, coalesce('to ' || a.assigned_to, 'to the team')),
           CASE WHEN a.note IS NOT NULL THEN '(' || a.note || ')' END), 6, a.assignment_id
FROM prepaid.task_assignments a JOIN prepaid.tasks k USING (task_id);

CREATE OR REPLACE FUNCTION prepaid.audit_task_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT CASE n.status WHEN 'Withdrawn' THEN 'task_withdrawn' WHEN 'Open' THEN 'task_first_approved'
                ELSE 'task_decided' END,
           n.service_plan_id, 'task', n.task_id, coalesce(o.decision, o.status),
           CASE n.status WHEN 'Done' THEN n.decision ELSE n.status END, n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE (n.status, n.decision) IS DISTINCT FROM (o.status, o.decision)
       OR n.status = 'Open' AND n.first_approved_by IS DISTINCT FROM o.first_approved_by;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'task_reassigned', n.service_plan_id, 'task', n.task_id, o.assigned_to, n.assigned_to, n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE n.assigned_to IS DISTINCT FROM o.assigned_to;
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'task_closed', n.service_plan_id, 'task', n.task_id, n.decision, 'closed', n.kind,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (task_id)
    WHERE n.closed_at IS NOT NULL AND o.closed_at IS NULL;
    RETURN NULL;
END $$;

-- A sentence of ours up to where it quotes one of the words: what a provider or a person has written
-- may be a name, and stays out of the log. The whole sentence is where it can be erased.
CREATE FUNCTION prepaid.own_words(sentence text, VARIADIC quoted text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (SELECT CASE WHEN min(place.n) > 0 THEN left(sentence, min(place.n) - 1) || '…' ELSE sentence END
     FROM unnest(quoted) q (word)
     CROSS JOIN LATERAL (SELECT nullif(position(nullif(q.word, '') IN sentence), 0) AS n) place);

CREATE OR REPLACE FUNCTION prepaid.audit_record_outcomes() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'transaction_' || n.outcome, i.service_plan_id, 'transaction', n.transaction_id,
           o.outcome, n.outcome,
           CASE WHEN n.outcome_reason IS NOT NULL THEN prepaid.own_words(n.outcome_reason,
               left(n.customer_ref, 100),
               CASE WHEN prepaid.record_status(n.status) = 'Unknown' THEN left(n.status, 100) END,
               CASE WHEN n.currency !~ '^[A-Z]{3}$' THEN left(n.currency, 20) END,
               CASE WHEN NOT EXISTS (SELECT FROM prepaid.invoices named
                                     WHERE named.invoice_number = n.invoice_number)
                    THEN left(n.invoice_number, 100) END) END,
           prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (transaction_id)
    LEFT JOIN prepaid.invoices i ON i.invoice_id = n.invoice_id
    WHERE n.outcome IS DISTINCT FROM o.outcome AND n.outcome IS NOT NULL;
    RETURN NULL;
END $$;

-- Mails: an attempt whose outcome is unknown, how long the server puts a mail off, corrected addresses.
ALTER TABLE prepaid.emails
    DROP CONSTRAINT emails_status_check,
    ADD CONSTRAINT emails_status_check
        CHECK (status IN ('pending', 'sending', 'sent', 'failed', 'unknown', 'dropped')),
    ADD COLUMN unknown_attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN deferred_since timestamptz,
    ADD COLUMN corrections integer NOT NULL DEFAULT 0;
-- Most of it is a PDF in base64, which does not get smaller; trying to took as long as sending.
ALTER TABLE prepaid.emails ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX emails_undelivered ON prepaid.emails (email_id) WHERE status IN ('failed', 'unknown');
CREATE OR REPLACE FUNCTION prepaid.audit_email_status() RETURNS trigger LANGUAGE plpgsql
SET enable_nestloop TO off AS $$
BEGIN
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'email_' || n.status, n.service_plan_id, 'email', n.email_id, o.status, n.status,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.status <> o.status
      AND (n.status IN ('sent', 'failed', 'unknown', 'dropped') OR o.status IN ('failed', 'unknown'));
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, before, after, detail, actor, run_id, as_of)
    SELECT 'email_attempt_unknown', n.service_plan_id, 'email', n.email_id, o.status, n.status,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.unknown_attempts > o.unknown_attempts AND n.status <> 'unknown';
    INSERT INTO prepaid.audit_log
        (event, service_plan_id, entity, entity_id, detail, actor, run_id, as_of)
    SELECT 'email_address_corrected', n.service_plan_id, 'email', n.email_id,
           n.template, prepaid.actor(), prepaid.run_id(), prepaid.as_of()
    FROM new_rows n JOIN old_rows o USING (email_id)
    WHERE n.corrections > o.corrections;
    RETURN NULL;
END $$;

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
        RAISE EXCEPTION 'mail % cannot %: %', refused.email_id, action, coalesce(
            'only ' || array_to_string(states, ' and ') || ' ones can, and it is ' || refused.status,
            'there is no such mail');
    END IF;
END $$;

-- Sends failed and unknown mails again under the acting person's name, all or nothing: what was
-- written is sent as it was, the same bytes with the same Message-ID. One that may have arrived gets
-- one more attempt of unknown outcome, no two. Returns how many.
CREATE OR REPLACE FUNCTION prepaid.resend_emails(email_ids bigint[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.acting_person();
    resent integer;
BEGIN
    IF NOT prepaid.is_in_team(person, 'customer_success', 'engineering') THEN
        RAISE EXCEPTION '% may not send mails again: not in customer_success or engineering', person;
    END IF;
    PERFORM set_config('prepaid.actor', person, true);
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
    person text := prepaid.person_in(ARRAY['customer_success', 'engineering'], 'settle mails', why);
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
CREATE FUNCTION prepaid.correct_email_address(mail bigint, address text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    PERFORM prepaid.person_in(ARRAY['customer_success'], 'change a customer''s address', address);
    IF address !~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$' THEN
        RAISE EXCEPTION '% is not an e-mail address', address;
    END IF;
    -- Of an unknown one a copy may be where it was sent: it stays the mail that it is.
    PERFORM prepaid.require_emails(ARRAY[mail], ARRAY['failed'], 'go to another address');
    IF EXISTS (SELECT FROM prepaid.emails WHERE email_id = mail AND service_plan_id IS NULL) THEN
        RAISE EXCEPTION 'mail % is to one of our own people: their address is changed with prepaid user add',
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

-- Support's list: what failed for good, and what may or may not have arrived.
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
REVOKE EXECUTE ON FUNCTION prepaid.settle_emails, prepaid.correct_email_address FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.settle_emails TO customer_success, engineering;
GRANT EXECUTE ON FUNCTION prepaid.correct_email_address TO customer_success;
GRANT SELECT ON prepaid.undelivered_mails TO customer_success, engineering;

-- Erasure. Rows that are only ever added still are; of people's words in them the text can be erased.

DROP TRIGGER sign_offs_append_only ON prepaid.sign_offs;
CREATE TRIGGER sign_offs_append_only BEFORE DELETE OR TRUNCATE ON prepaid.sign_offs
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER sign_offs_append_only;
DROP TRIGGER task_assignments_append_only ON prepaid.task_assignments;
CREATE TRIGGER task_assignments_append_only BEFORE DELETE OR TRUNCATE
    ON prepaid.task_assignments FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
DROP TRIGGER requests_append_only ON prepaid.requests;
CREATE TRIGGER requests_append_only BEFORE DELETE OR TRUNCATE ON prepaid.requests
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();
DROP TRIGGER credit_notes_stay ON prepaid.credit_notes;
CREATE TRIGGER credit_notes_stay BEFORE DELETE OR TRUNCATE ON prepaid.credit_notes
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

-- A customer's personal data is erased on request: names, addresses and what people wrote about them.
-- Amounts, dates, the country that the tax is of and the audit log stay, as the law asks of invoices.

CREATE TABLE prepaid.erasures (
    customer_id bigint PRIMARY KEY REFERENCES prepaid.customers,
    reason text NOT NULL CHECK (reason ~ '\S'),
    erased_by text NOT NULL,
    erased_on date NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER erasures_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prepaid.erasures
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.refuse_change();

-- The payment records that are about a customer: of their invoices, or under their reference.
CREATE FUNCTION prepaid.records_of(customer bigint) RETURNS TABLE (transaction_id bigint)
LANGUAGE sql STABLE AS $$
    SELECT t.transaction_id FROM prepaid.invoices i
    JOIN prepaid.transactions t ON t.invoice_id = i.invoice_id WHERE i.customer_id = customer
    UNION
    SELECT t.transaction_id FROM prepaid.invoices i
    JOIN prepaid.transactions t ON t.invoice_number = i.invoice_number WHERE i.customer_id = customer
    UNION
    SELECT t.transaction_id FROM prepaid.customers c
    JOIN prepaid.transactions t ON t.customer_ref = c.customer_ref WHERE c.customer_id = customer
$$;

-- Why a customer cannot be erased yet; null: nothing is in the way.
CREATE FUNCTION prepaid.erasure_refusal(customer bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT reason FROM (
        SELECT 1 AS place, format('was erased on %s by %s already', e.erased_on, e.erased_by) AS reason
        FROM prepaid.erasures e WHERE e.customer_id = customer
        UNION ALL
        SELECT 2, format('service plan %s is %s: cancel it, or wait until it has ended',
                         p.service_plan_id, p.status)
        FROM prepaid.service_plans p
        WHERE p.customer_id = customer AND p.status IN ('Pending', 'Processing', 'Active')
        UNION ALL
        SELECT 3, format('subscription %s goes on: cancel it first', s.subscription_ref)
        FROM prepaid.subscriptions s
        WHERE s.customer_id = customer AND (s.cancelled_on IS NULL OR s.cancelled_on > prepaid.today())
          AND (s.auto_renew OR NOT EXISTS (SELECT FROM prepaid.service_plans p
                                           WHERE p.subscription_id = s.subscription_id))
        UNION ALL
        SELECT 4, format('invoice %s is open: it is to be paid, or voided', i.invoice_number)
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
        SELECT 7, format('mail %s is %s: it is to arrive first', m.email_id, m.status)
        FROM prepaid.emails m JOIN prepaid.service_plans p USING (service_plan_id)
        WHERE p.customer_id = customer AND m.status IN ('pending', 'sending', 'unknown')
        UNION ALL
        SELECT 8, format('payment record %s is not judged yet', t.transaction_id)
        FROM prepaid.transactions t
        WHERE t.transaction_id IN (SELECT transaction_id FROM prepaid.records_of(customer))
          AND (t.outcome IS NULL OR t.outcome = 'waiting')
    ) refusals ORDER BY place, reason LIMIT 1
$$;

-- Of rows that are only ever added people's words can be erased, and nothing else.
CREATE FUNCTION prepaid.only_erase_notes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- (A generated column is not computed yet in a BEFORE trigger.)
    IF NEW.note = '(erased)' AND OLD.note IS NOT NULL
       AND to_jsonb(NEW) - ARRAY['note', 'refund'] = to_jsonb(OLD) - ARRAY['note', 'refund'] THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
END $$;
CREATE TRIGGER sign_offs_notes BEFORE UPDATE ON prepaid.sign_offs
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();
ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER sign_offs_notes;
CREATE TRIGGER task_assignments_notes BEFORE UPDATE ON prepaid.task_assignments
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();
CREATE TRIGGER requests_notes BEFORE UPDATE ON prepaid.requests
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();
CREATE TRIGGER credit_notes_notes BEFORE UPDATE ON prepaid.credit_notes
    FOR EACH ROW EXECUTE FUNCTION prepaid.only_erase_notes();

-- Erases a customer for the acting person; all or nothing. Returns the Message-IDs of the mails whose
-- bytes are gone: where they were written as files, those are the caller's to delete.
CREATE FUNCTION prepaid.erase_customer(ref text, why text)
RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    person text := prepaid.person_in(ARRAY['customer_success', 'engineering'], 'erase a customer', why);
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

GRANT SELECT ON prepaid.erasures TO engineering;
GRANT UPDATE (note) ON prepaid.sign_offs TO CURRENT_USER;
REVOKE EXECUTE ON FUNCTION prepaid.erase_customer FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.erase_customer TO customer_success, engineering;
