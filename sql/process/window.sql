-- What the window of business dates hangs on, and what has to be known to keep it.

-- name: look
SELECT timezone, first_real_day IS NOT NULL AS real FROM prepaid.installation;

-- name: note_real_day
UPDATE prepaid.installation SET first_real_day = CAST(:as_of AS date) WHERE first_real_day IS NULL;
