-- Figures as of a later date know more: these months leave the run. A replay asks for it otherwise.
DELETE FROM revenue.months_staging s
USING revenue.months m
WHERE s.run_id = :run_id AND m.month = s.month AND m.as_of > s.as_of AND NOT :replay
RETURNING m.month, m.as_of, s.as_of AS asked;
