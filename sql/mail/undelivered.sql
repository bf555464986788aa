-- The outbox, as the command line shows it and sends again from it.

-- name: list
SELECT e.email_id, e.service_plan_id, e.template, e.occasion, c.customer_ref, e.recipient,
       e.created_at, e.status, e.attempts, e.next_attempt_at, e.last_error
FROM prepaid.emails e
LEFT JOIN prepaid.service_plans p USING (service_plan_id)
LEFT JOIN prepaid.customers c ON c.customer_id = p.customer_id
WHERE CASE WHEN CAST(:status AS text) IS NULL THEN e.status IN ('pending', 'sending', 'failed', 'unknown')
      ELSE e.status = :status END
ORDER BY e.email_id DESC LIMIT 1000;

-- name: resend
SELECT prepaid.resend_emails(CAST(:mails AS bigint[])) AS resent;

-- name: settle
SELECT prepaid.settle_emails(CAST(:mails AS bigint[]), :note) AS settled;

-- name: correct
SELECT prepaid.correct_email_address(:mail, :address);
