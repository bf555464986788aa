-- What holds for the whole installation, and which day it is there.

-- One row. 'prepaid migrate' writes it from PREPAID_TIMEZONE, PREPAID_TASK_DAYS and PREPAID_GRACE_DAYS,
-- so that everybody who works with the tables counts the same days.
CREATE TABLE prepaid.installation (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    timezone text NOT NULL,
    -- How many days people have for a task.
    task_days integer NOT NULL DEFAULT 3 CHECK (task_days >= 0),
    -- How many days after its end a term counts as renewed, in the figures of renewals.
    grace_days integer NOT NULL DEFAULT 7 CHECK (grace_days >= 0),
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

-- The business date of what is being done: the one that was given, else today where the
-- installation is (never current_date: that is the day where the session happens to be).
CREATE FUNCTION prepaid.today() RETURNS date LANGUAGE sql STABLE RETURN
    coalesce(prepaid.as_of(), prepaid.business_date(now()));
