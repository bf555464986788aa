-- What a run that has ended had claimed and not finished. Its lease would keep others off for
-- nothing; a worker that still lives after all finds none of its plans and changes nothing.

-- name: holders
SELECT DISTINCT run_id FROM prepaid.batches
WHERE queue = :queue AND finished_at IS NULL AND leased_until > clock_timestamp()
  AND run_id IS NOT NULL;

-- name: end
UPDATE prepaid.batches SET leased_until = clock_timestamp()
WHERE queue = :queue AND finished_at IS NULL AND leased_until > clock_timestamp()
  AND run_id = ANY (:runs);
