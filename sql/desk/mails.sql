-- Support's list of emails: what failed permanently, and what may or may not have arrived.

-- name: list
SELECT email_id, status, template, recipient, created_at, last_error, service_plan_id, customer_ref,
       customer_name, plan_name, invoice_number
FROM prepaid.undelivered_mails
WHERE email_id > :after
  AND (:show = '' OR status = :show)
  AND (CAST(:search AS text) IS NULL OR position(lower(:search) IN lower(
        concat_ws(' ', customer_ref, customer_name, invoice_number, plan_name, recipient, last_error))) > 0)
ORDER BY email_id LIMIT :rows;

-- name: one
SELECT email_id, status, template, recipient, created_at, attempts, unknown_attempts, last_error,
       service_plan_id, customer_ref, customer_name, plan_name, invoice_number
FROM prepaid.undelivered_mails WHERE email_id = :mail;

-- name: resend
SELECT prepaid.resend_emails(CAST(:mails AS bigint[])) AS resent;

-- name: settle
SELECT prepaid.settle_emails(ARRAY[CAST(:mail AS bigint)], :note);

-- name: correct
SELECT prepaid.correct_email_address(:mail, :address);

-- name: count
SELECT count(*) AS mails, min(created_at) AS oldest FROM prepaid.undelivered_mails;
