-- Reminds people of open tasks whose due date is over, and tells the team's lead when that has been so
-- for some days: one mail per address and day, which lists the tasks.

-- name: one_at_a_time
SELECT prepaid.take_lock('overdue tasks');

-- name: remind
-- The person who is asked, or else (nobody is, or without an address) all of the team who have one. A
-- task that nobody could be told of is told as soon as there is an address. An address that has had its
-- mail today gets the next one tomorrow.
WITH members AS MATERIALIZED (
    SELECT team, person, email FROM prepaid.team_members WHERE email IS NOT NULL
), late AS (
    SELECT k.task_id, s.stage, k.assigned_role AS team, m.person AS asked
    FROM prepaid.tasks k
    CROSS JOIN (VALUES ('overdue', 1), ('escalated', CAST(:escalate_days AS integer))) s (stage, days)
    LEFT JOIN members m ON m.person = k.assigned_to AND m.team = k.assigned_role
    WHERE k.status = 'Open' AND k.due_on + s.days <= CAST(:as_of AS date)
), told AS (
    SELECT l.task_id, l.stage, m.email AS recipient
    FROM late l JOIN members m ON m.team = l.team AND m.person = coalesce(l.asked, m.person)
    WHERE l.stage = 'overdue'
    UNION
    SELECT l.task_id, l.stage, lead.address
    FROM late l
    JOIN unnest(CAST(:teams AS text[]), CAST(:addresses AS text[])) lead (team, address) USING (team)
    WHERE l.stage = 'escalated'
), unsaid AS (
    SELECT told.*, told.stage || ' ' || CAST(:as_of AS date) AS occasion FROM told
    WHERE NOT EXISTS (SELECT FROM prepaid.task_reminders r
                      WHERE (r.task_id, r.stage, r.recipient) = (told.task_id, told.stage, told.recipient))
), mails AS (
    INSERT INTO prepaid.emails (template, occasion, recipient)
    SELECT DISTINCT 'overdue_tasks', occasion, recipient FROM unsaid ORDER BY occasion, recipient
    ON CONFLICT DO NOTHING
    RETURNING email_id, occasion, recipient
), noted AS (
    INSERT INTO prepaid.task_reminders (task_id, stage, recipient, email_id, reminded_on)
    SELECT u.task_id, u.stage, u.recipient, m.email_id, :as_of
    FROM unsaid u JOIN mails m USING (occasion, recipient)
)
SELECT count(*) FROM mails;
