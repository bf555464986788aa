-- What waits longer than it should. ``matter`` is told once, as long as it lasts; ``text`` says what it
-- is, in numbers and never with a name.

-- name: matters
-- Batches whose lease is over for an hour: the next run should have taken their plans up long ago.
SELECT 'batch ' || b.batch_id AS matter,
       format('batch %s of %s has not gone on since %s UTC: does a run of %s fail or wait?', b.batch_id,
              b.queue, to_char(b.leased_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), b.queue) AS text
FROM prepaid.batches b
WHERE b.finished_at IS NULL AND b.leased_until < clock_timestamp() - interval '1 hour'
  -- Only if a plan of it waits for that queue; what it has invoiced waits for people.
  AND EXISTS (SELECT FROM prepaid.unsettled_plans u JOIN prepaid.service_plans p USING (service_plan_id)
              WHERE u.batch_id = b.batch_id AND (b.queue = 'settle_renewals' OR p.invoiced_at IS NULL)
                AND NOT EXISTS (SELECT FROM prepaid.holds h
                                WHERE h.service_plan_id = p.service_plan_id AND h.released_at IS NULL))
UNION ALL
SELECT 'overdue ' || k.kind,
       format('%s tasks (%s) are overdue for more than %s days, the oldest since %s',
              to_char(count(*), 'FM999,999,999'), replace(k.kind, '_', ' '), CAST(:escalate_days AS integer), min(k.due_on))
FROM prepaid.tasks k
WHERE k.status = 'Open' AND k.due_on + CAST(:escalate_days AS integer) < CAST(:today AS date)
GROUP BY k.kind
UNION ALL
SELECT 'unsent mails',
       format('%s emails have been waiting for more than %s hours, the oldest since %s UTC: does the mail server take any?',
              to_char(count(*), 'FM999,999,999'), CAST(:unsent_hours AS integer),
              to_char(min(e.created_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))
FROM prepaid.emails e
WHERE e.status IN ('pending', 'sending')
  AND e.created_at < clock_timestamp() - make_interval(hours => CAST(:unsent_hours AS integer))
HAVING count(*) > 0
ORDER BY 1;
