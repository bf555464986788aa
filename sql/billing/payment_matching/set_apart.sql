-- A record that cannot be judged: it is parked by itself, so that all others go on. Its reason says what
-- the database said. (An assigned one is tried again.)

-- name: undecided
SELECT CAST(array_agg(transaction_id ORDER BY transaction_id) AS text) AS records
FROM (SELECT transaction_id FROM prepaid.transactions
      WHERE outcome IS NULL ORDER BY transaction_id LIMIT :limit) landed;

-- name: park
UPDATE prepaid.transactions t
SET outcome = 'parked', outcome_reason = format('judging the record failed: %s', CAST(:reason AS text)),
    credit_note_id = NULL, set_apart = true, decided_at = clock_timestamp(),
    time_doubted = CASE WHEN t.decided_at IS NULL
        THEN coalesce(t.occurred_at > prepaid.latest_believable(:as_of), false) ELSE t.time_doubted END
WHERE t.transaction_id = ANY (CAST(:records AS bigint[]));

-- name: ask_for_review
INSERT INTO prepaid.tasks
    (kind, service_plan_id, invoice_id, transaction_id, assigned_role, opened_on, due_on)
SELECT 'payment_review', i.service_plan_id, i.invoice_id, t.transaction_id,
       prepaid.team_of('payment_review'), :as_of, prepaid.task_due_on(:as_of)
FROM prepaid.transactions t
LEFT JOIN prepaid.invoices i ON i.invoice_number = t.invoice_number
WHERE t.transaction_id = ANY (CAST(:records AS bigint[]))
  AND NOT EXISTS (SELECT FROM prepaid.tasks k WHERE k.transaction_id = t.transaction_id
                  AND k.kind = 'payment_review' AND k.status = 'Open' OFFSET 0);
