-- What tells payments apart, what no money is, and records that no column holds.

ALTER TABLE prepaid.transactions
    -- Of an entry of a bank statement: what tells it from the others (a hash of all that the bank wrote
    -- about it), and the bank's reference where other payments have it too, so that provider_ref had to
    -- be a longer one.
    ADD COLUMN entry_digest text,
    ADD COLUMN bank_ref text,
    -- What the columns cannot hold, by the column's name, as it was written.
    ADD COLUMN as_delivered jsonb;
CREATE INDEX transactions_by_bank_ref ON prepaid.transactions (hashtextextended(bank_ref, 0))
    WHERE bank_ref IS NOT NULL;
CREATE INDEX transactions_by_entry ON prepaid.transactions (entry_digest) WHERE entry_digest IS NOT NULL;

-- A status in our words. Providers' words for a checkout that the customer has not completed are
-- Unfinished, those for one that was called off are Failed: no money is on its way. Any word that we do
-- not know is Unknown: a state of its own, never guessed.
CREATE OR REPLACE FUNCTION prepaid.record_status(status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN status IN ('Success', 'Pending', 'Failed', 'Refunded', 'Chargeback',
                         'ChargebackReversed', 'Unfinished') THEN status
         WHEN lower(status) IN ('canceled', 'cancelled') THEN 'Failed'
         WHEN lower(status) IN ('requires_payment_method', 'requires_action', 'requires_confirmation')
         THEN 'Unfinished' ELSE 'Unknown' END;

-- Amounts and times that a reader could stumble over: of more digits than any money has, of a year in
-- which nobody pays, infinite, no number. Year 10000 is none in most programs, and twice the largest
-- number is none in this one.
CREATE FUNCTION prepaid.is_bearable(amount numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(abs(amount) < 1e15 AND scale(trim_scale(amount)) <= 15, amount IS NULL);
CREATE FUNCTION prepaid.is_bearable(moment timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(moment >= '0002-01-01 00:00+00' AND moment < '9999-01-01 00:00+00', true);

-- What a provider writes is landed whatever it is. What readers cannot bear stands beside the record as
-- text, and the record has no amount or no time: finance is asked about it.
CREATE FUNCTION prepaid.keep_as_delivered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT prepaid.is_bearable(NEW.amount) THEN
        NEW.as_delivered := coalesce(NEW.as_delivered, '{}') || jsonb_build_object('amount', NEW.amount::text);
        NEW.amount := NULL;
    END IF;
    IF NOT prepaid.is_bearable(NEW.occurred_at) THEN
        NEW.as_delivered := coalesce(NEW.as_delivered, '{}')
            || jsonb_build_object('occurred_at', NEW.occurred_at::text);
        NEW.occurred_at := NULL;
    END IF;
    RETURN NEW;
END $$;
-- (Before the identical record is looked for: triggers fire in the order of their names.)
CREATE TRIGGER as_delivered BEFORE INSERT ON prepaid.transactions
    FOR EACH ROW WHEN (NOT prepaid.is_bearable(NEW.amount) OR NOT prepaid.is_bearable(NEW.occurred_at))
    EXECUTE FUNCTION prepaid.keep_as_delivered();

-- Providers deliver at least once: the identical event again is dropped. So is one that a bank statement
-- has brought already, whose payment may have a longer reference now; of its time only the day counts,
-- because another file may have the hour. Two deliveries at the same moment may both land;
-- match_payments supersedes the second. The plan of the look-up is kept from the first rows, when
-- reading the whole table was cheap: by the index 20,000 records land in 0.4 s instead of 36 s.
CREATE OR REPLACE FUNCTION prepaid.drop_identical_record() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan TO off SET plan_cache_mode TO force_generic_plan AS $$
BEGIN
    IF EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(NEW.provider_ref, 0)
          -- By the index: 25 hours are the longest day.
          AND t.occurred_at > NEW.occurred_at - interval '25 hours'
          AND t.occurred_at < NEW.occurred_at + interval '25 hours'
          AND t.provider = NEW.provider AND t.provider_ref = NEW.provider_ref
          -- Two entries of statements are two, whatever they say: that was settled before.
          AND (NEW.entry_digest IS NULL OR t.entry_digest IS NULL)
          AND (t.occurred_at = NEW.occurred_at OR NEW.entry_digest IS NULL AND t.entry_digest IS NOT NULL
               AND prepaid.business_date(t.occurred_at) = prepaid.business_date(NEW.occurred_at))
          AND t.status = NEW.status
          AND (t.invoice_number, t.amount, t.currency, t.customer_ref, t.as_delivered) IS NOT DISTINCT FROM
              (NEW.invoice_number, NEW.amount, NEW.currency, NEW.customer_ref, NEW.as_delivered)
    ) OR NEW.occurred_at IS NULL AND NEW.as_delivered IS NOT NULL AND EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE hashtextextended(t.provider_ref, 0) = hashtextextended(NEW.provider_ref, 0)
          AND t.occurred_at IS NULL
          AND t.provider = NEW.provider AND t.provider_ref = NEW.provider_ref AND t.status = NEW.status
          AND (t.invoice_number, t.amount, t.currency, t.customer_ref, t.as_delivered) IS NOT DISTINCT FROM
              (NEW.invoice_number, NEW.amount, NEW.currency, NEW.customer_ref, NEW.as_delivered)
    ) OR NEW.entry_digest IS NULL AND EXISTS (
        SELECT FROM prepaid.transactions t
        WHERE hashtextextended(t.bank_ref, 0) = hashtextextended(NEW.provider_ref, 0)
          AND t.provider = NEW.provider AND t.bank_ref = NEW.provider_ref AND t.status = NEW.status
          AND prepaid.business_date(t.occurred_at) = prepaid.business_date(NEW.occurred_at)
          AND (t.invoice_number, t.amount, t.currency) IS NOT DISTINCT FROM
              (NEW.invoice_number, NEW.amount, NEW.currency)
    ) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;

-- Voids the open invoices of plans with what hangs on them: nobody is asked to pay or to verify any
-- more, and money that was matched to them goes to finance as a task.
CREATE OR REPLACE FUNCTION prepaid.void_open_invoices(plans bigint[]) RETURNS void LANGUAGE plpgsql AS $$
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
    -- Nobody is asked any more why a payment of it has failed.
    UPDATE prepaid.tasks k SET status = 'Withdrawn'
    FROM prepaid.invoices i JOIN prepaid.transactions t USING (invoice_id)
    WHERE i.service_plan_id = ANY (plans) AND i.status = 'Open'
      AND t.outcome = 'parked' AND prepaid.record_status(t.status) = 'Failed'
      AND k.transaction_id = t.transaction_id AND k.kind = 'payment_review' AND k.status = 'Open';
    UPDATE prepaid.transactions t
    SET outcome = 'superseded', outcome_reason = format('invoice %s is void', i.invoice_number)
    FROM prepaid.invoices i
    WHERE i.service_plan_id = ANY (plans) AND i.status = 'Open' AND t.invoice_id = i.invoice_id
      AND t.outcome = 'parked' AND prepaid.record_status(t.status) = 'Failed';
    -- The record is free: a person may assign it to another invoice.
    UPDATE prepaid.invoices SET status = 'Void', transaction_id = NULL
    WHERE service_plan_id = ANY (plans) AND status = 'Open';
END $$;

-- Which open invoices a parked payment may be meant for. A help for finance; nothing acts on it. By the
-- customer or by the number: never by the amount alone, which many invoices share. A number that is one
-- of an invoice means that one, and no other that looks like it; one that is only written differently
-- means that before any slip of the fingers. (NOT MATERIALIZED: who asks about some records does not wait
-- for the others.)
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
    SELECT t.transaction_id, i.invoice_id, 'as the record has it'
    FROM parked t
    JOIN prepaid.invoices i ON i.invoice_number = t.invoice_number AND i.status = 'Open'
    UNION ALL
    SELECT t.transaction_id, i.invoice_id, meant.slip
    FROM parked t
    CROSS JOIN LATERAL prepaid.meant_numbers(t.invoice_number) meant
    JOIN prepaid.invoices i ON prepaid.plain_number(i.invoice_number) = meant.plain AND i.status = 'Open'
    WHERE NOT EXISTS (SELECT FROM prepaid.invoices named WHERE named.invoice_number = t.invoice_number OFFSET 0)
      AND (meant.slip = 'written differently' OR NOT EXISTS (
              SELECT FROM prepaid.invoices plain
              WHERE prepaid.plain_number(plain.invoice_number)
                    = prepaid.plain_number(left(t.invoice_number, 100)) OFFSET 0))
), fitting AS (
    SELECT found.*, t.invoice_number = i.invoice_number AS is_named,
           coalesce(bool_or(t.invoice_number = i.invoice_number) OVER (PARTITION BY found.transaction_id),
                    false) AS one_is_named
    FROM (SELECT transaction_id, invoice_id, max(slip) AS slip FROM candidates GROUP BY 1, 2) found
    JOIN parked t USING (transaction_id)
    JOIN prepaid.invoices i ON i.invoice_id = found.invoice_id
    WHERE i.payable = t.amount AND i.currency = t.currency
      AND NOT EXISTS (SELECT FROM prepaid.transactions m
                      WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched')
)
SELECT t.transaction_id, t.provider, t.provider_ref, t.invoice_number AS record_invoice_number,
       t.amount, t.currency, t.customer_ref AS record_customer_ref, t.occurred_at, t.outcome_reason,
       i.invoice_number, i.service_plan_id, c.customer_ref, c.name AS customer_name, i.issued_on,
       concat_ws('; ', 'same amount', CASE WHEN t.customer_ref = c.customer_ref THEN 'same customer' END,
                 'the number: ' || found.slip) AS because
FROM fitting found
JOIN parked t USING (transaction_id)
JOIN prepaid.invoices i ON i.invoice_id = found.invoice_id
JOIN prepaid.customers c ON c.customer_id = i.customer_id
WHERE found.is_named OR NOT found.one_is_named;

-- Parked payments that finance is asked about: the record, why it is parked, which open invoices it may
-- be meant for, and what can be done.
CREATE OR REPLACE VIEW prepaid.parked_payments AS
SELECT k.task_id, k.status, k.opened_on, k.due_on, k.assigned_to, t.transaction_id, t.provider,
       t.provider_ref, t.invoice_number AS record_invoice_number, t.customer_ref, t.amount, t.currency,
       t.status AS record_status, t.occurred_at, t.outcome, t.outcome_reason AS reason,
       k.service_plan_id, coalesce(s.suggestions, '[]') AS suggestions,
       CASE WHEN t.outcome = 'parked' AND t.status = 'Success'
            THEN 'assign it to the open invoice that it pays, or pay it back; then decide the task'
            ELSE 'clear it up with the provider; then decide the task' END AS what_to_do,
       k.decision, k.note, k.decided_by, k.decided_at, t.as_delivered
FROM prepaid.tasks k
JOIN prepaid.transactions t USING (transaction_id)
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('invoice_number', p.invoice_number,
               'customer_ref', p.customer_ref, 'customer_name', p.customer_name,
               'because', p.because) ORDER BY p.invoice_number) AS suggestions
    FROM prepaid.payment_suggestions p WHERE p.transaction_id = t.transaction_id OFFSET 0) s ON true
WHERE k.kind = 'payment_review' AND k.status <> 'Withdrawn';

-- Invoices that nobody has begun to pay, so that the customer is reminded and at last the plan is
-- cancelled. Not while anything about the payment is in our own hands: the plan held, a record that
-- matches or was not judged yet, a question to finance, or an approval that came first. A payment that
-- failed brings no money: whether finance is asked about it makes no difference. clearing_since: the
-- latest day of what is on its way; whoever reads it knows for how many days that counts.
CREATE OR REPLACE VIEW prepaid.unpaid_invoices AS
SELECT i.invoice_id, i.invoice_number, p.service_plan_id, p.email,
       prepaid.due_on(i.issued_on, p.planned_start) AS due_on, running.end_date AS running_until,
       -- A day after the delivery is none on which anything happened.
       (SELECT max(prepaid.business_date(least(t.occurred_at, t.received_at)))
        FROM prepaid.transactions t
        WHERE t.invoice_number = i.invoice_number AND t.outcome = 'waiting') AS clearing_since
FROM prepaid.service_plans p
JOIN prepaid.invoices i ON i.service_plan_id = p.service_plan_id AND i.status = 'Open'
LEFT JOIN prepaid.service_plans running
    ON running.service_plan_id = p.previous_plan_id AND p.kind = 'change'
WHERE p.status = 'Pending' AND p.invoiced_at IS NOT NULL
  AND i.payable > 0
  AND NOT EXISTS (SELECT FROM prepaid.holds h
                  WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome = 'matched')
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_number = i.invoice_number AND t.outcome IS NULL)
  -- Assigned to it by a person, whatever number the record has.
  AND NOT EXISTS (SELECT FROM prepaid.transactions t
                  WHERE t.invoice_id = i.invoice_id AND t.outcome IS NULL)
  AND NOT EXISTS (SELECT FROM prepaid.tasks k
                  WHERE k.service_plan_id = p.service_plan_id AND k.invoice_id = i.invoice_id
                    AND (k.kind = 'payment_review' AND k.status = 'Open'
                         AND NOT EXISTS (SELECT FROM prepaid.transactions t
                                         WHERE t.transaction_id = k.transaction_id
                                           AND prepaid.record_status(t.status) = 'Failed')
                      OR k.kind = 'payment_verification' AND k.status <> 'Withdrawn'
                        AND (k.decision = 'approved' OR k.first_approved_by IS NOT NULL)));

-- What has landed and could not be read everywhere.
UPDATE prepaid.transactions
SET as_delivered = jsonb_strip_nulls(jsonb_build_object(
        'amount', CASE WHEN NOT prepaid.is_bearable(amount) THEN amount::text END,
        'occurred_at', CASE WHEN NOT prepaid.is_bearable(occurred_at) THEN occurred_at::text END)),
    amount = CASE WHEN prepaid.is_bearable(amount) THEN amount END,
    occurred_at = CASE WHEN prepaid.is_bearable(occurred_at) THEN occurred_at END
WHERE NOT prepaid.is_bearable(amount) OR NOT prepaid.is_bearable(occurred_at);

-- Checkouts that were not completed or called off are no money on its way, and an invoice's second
-- decline is no second matter: they are judged again, by the next run.
UPDATE prepaid.transactions SET outcome = NULL, outcome_reason = NULL
WHERE outcome = 'waiting' AND prepaid.record_status(status) IN ('Failed', 'Unfinished');
UPDATE prepaid.transactions t SET outcome = NULL, outcome_reason = NULL
WHERE t.outcome = 'parked' AND t.status = 'Failed'
  AND EXISTS (SELECT FROM prepaid.tasks k WHERE k.transaction_id = t.transaction_id
              AND k.kind = 'payment_review' AND k.status = 'Open')
  AND EXISTS (SELECT FROM prepaid.transactions other
              WHERE other.invoice_id = t.invoice_id AND other.transaction_id <> t.transaction_id
                AND (other.outcome = 'matched' OR other.outcome = 'parked' AND other.status = 'Failed'));
