-- The settings that the database follows, as 'prepaid migrate' writes them.

-- name: unknown_currencies
SELECT string_agg(asked.currency, ', ') FROM unnest(CAST(:currencies AS text[])) asked (currency)
WHERE asked.currency NOT IN (SELECT currency FROM prepaid.currencies);

-- name: write_task_days
-- For tasks that are opened from now on.
UPDATE prepaid.installation SET task_days = :task_days WHERE task_days <> :task_days;

-- name: write_grace_days
UPDATE prepaid.installation SET grace_days = :grace_days WHERE grace_days <> :grace_days;

-- name: write_concessions
UPDATE prepaid.installation
SET concession_percent = :concession_percent, imported_concessions_wait = :imported_wait
WHERE (concession_percent, imported_concessions_wait)
    <> (CAST(:concession_percent AS numeric), CAST(:imported_wait AS boolean));

-- name: forget_limits
DELETE FROM prepaid.approval_limits WHERE currency <> ALL (CAST(:currencies AS text[]));

-- name: write_limits
INSERT INTO prepaid.approval_limits AS l (currency, amount)
SELECT * FROM unnest(CAST(:currencies AS text[]), CAST(:amounts AS numeric[]))
ON CONFLICT (currency) DO UPDATE SET amount = excluded.amount WHERE l.amount <> excluded.amount;

-- name: judge_open_approvals
SELECT task_id, said FROM prepaid.judge_open_approvals();
