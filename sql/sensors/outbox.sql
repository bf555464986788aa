-- Mails that can be sent now: new ones, those whose wait is over, those whose sender died.
SELECT email_id FROM prepaid.emails
WHERE (status = 'pending' AND next_attempt_at <= clock_timestamp() OR status = 'sending')
  AND (leased_until IS NULL OR leased_until < clock_timestamp())
LIMIT :limit;
