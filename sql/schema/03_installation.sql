-- What holds for the whole installation, and which day it is there.

-- One row. 'prepaid migrate' writes it from PREPAID_TIMEZONE, PREPAID_TASK_DAYS, PREPAID_GRACE_DAYS and
-- the two settings of concessions, so that everybody who works with the tables follows the same ones.
CREATE TABLE prepaid.installation (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    timezone text NOT NULL,
    -- How many days people have for a task.
    task_days integer NOT NULL DEFAULT 3 CHECK (task_days >= 0),
    -- How many days after its end a term counts as renewed, in the figures of renewals.
    grace_days integer NOT NULL DEFAULT 7 CHECK (grace_days >= 0),
    -- By how many per cent a person's own price may be below the list without finance's approval.
    concession_percent numeric NOT NULL DEFAULT 0 CHECK (concession_percent BETWEEN 0 AND 100),
    -- Whether what was imported below that waits for finance as well; else it counts as agreed.
    imported_concessions_wait boolean NOT NULL DEFAULT false,
    -- The first business date that nobody chose: from then on these are real customers, and nothing
    -- that cannot be taken back happens for a day that has not come. Null while every day was given.
    first_real_day date
);
INSERT INTO prepaid.installation (timezone) VALUES ('UTC');
CREATE TRIGGER audit_master_data AFTER UPDATE ON prepaid.installation
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('installation', 'no single key', 'values');

-- The day that a moment belongs to, where the installation is.
CREATE FUNCTION prepaid.business_date(moment timestamptz) RETURNS date LANGUAGE sql STABLE RETURN
    (moment AT TIME ZONE (SELECT timezone FROM prepaid.installation))::date;

-- Today where the installation is, by the clock at this moment. (A person can keep a transaction, and
-- even a statement, open for days: now() would be the day on which it began.)
CREATE FUNCTION prepaid.date_by_the_clock() RETURNS date LANGUAGE sql STABLE RETURN
    prepaid.business_date(clock_timestamp());

-- The business date of what is being done: in our own sessions the one that was given, else today where
-- the installation is (never current_date: that is the day where the session happens to be).
CREATE FUNCTION prepaid.today() RETURNS date LANGUAGE sql STABLE RETURN
    CASE WHEN prepaid.is_own_session() THEN coalesce(prepaid.as_of(), prepaid.business_date(now()))
        ELSE prepaid.date_by_the_clock() END;
