-- The outcome of the terms that ended, and how many of earlier customers remain.

-- Terms that ended in the month, by what came after each: exactly one of the six outcomes.
CREATE TABLE revenue.renewal_outcomes (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    plan_code text NOT NULL REFERENCES prepaid.plans (plan_code),
    country text NOT NULL,
    due bigint NOT NULL CHECK (due > 0),
    on_time bigint NOT NULL CHECK (on_time >= 0),
    in_grace bigint NOT NULL CHECK (in_grace >= 0),
    reactivated bigint NOT NULL CHECK (reactivated >= 0),
    cancelled bigint NOT NULL CHECK (cancelled >= 0),
    waiting bigint NOT NULL CHECK (waiting >= 0),
    lapsed bigint NOT NULL CHECK (lapsed >= 0),
    PRIMARY KEY (month, currency, plan_code, country),
    CHECK (on_time + in_grace + reactivated + cancelled + waiting + lapsed = due)
);
CREATE UNLOGGED TABLE revenue.renewal_outcomes_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    plan_code text,
    country text,
    due bigint,
    on_time bigint,
    in_grace bigint,
    reactivated bigint,
    cancelled bigint,
    waiting bigint,
    lapsed bigint
);

-- The customers with MRR a window of months ago, and what is left of them and of their MRR: mrr_kept
-- counts each customer's MRR of now up to what it was, mrr_now all of it.
CREATE TABLE revenue.retention (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    window_months smallint NOT NULL CHECK (window_months IN (1, 12)),
    customers_before bigint NOT NULL CHECK (customers_before > 0),
    customers_kept bigint NOT NULL CHECK (customers_kept >= 0),
    mrr_before numeric NOT NULL CHECK (mrr_before > 0),
    mrr_kept numeric NOT NULL CHECK (mrr_kept >= 0),
    mrr_now numeric NOT NULL CHECK (mrr_now >= 0),
    PRIMARY KEY (month, currency, window_months),
    CHECK (customers_kept <= customers_before),
    CHECK (mrr_kept <= mrr_before AND mrr_kept <= mrr_now)
);
CREATE UNLOGGED TABLE revenue.retention_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    window_months smallint,
    customers_before bigint,
    customers_kept bigint,
    mrr_before numeric,
    mrr_kept numeric,
    mrr_now numeric
);

-- The same since a customer's first month with MRR, which is the cohort.
CREATE TABLE revenue.cohorts (
    month date NOT NULL REFERENCES revenue.months,
    currency text NOT NULL REFERENCES prepaid.currencies,
    cohort date NOT NULL CHECK (extract(day FROM cohort) = 1),
    customers bigint NOT NULL CHECK (customers > 0),
    customers_kept bigint NOT NULL CHECK (customers_kept >= 0),
    mrr numeric NOT NULL CHECK (mrr > 0),
    mrr_kept numeric NOT NULL CHECK (mrr_kept >= 0),
    mrr_now numeric NOT NULL CHECK (mrr_now >= 0),
    PRIMARY KEY (month, currency, cohort),
    CHECK (cohort <= month),
    CHECK (customers_kept <= customers),
    CHECK (mrr_kept <= mrr AND mrr_kept <= mrr_now)
);
CREATE UNLOGGED TABLE revenue.cohorts_staging (
    run_id text NOT NULL,
    month date,
    currency text,
    cohort date,
    customers bigint,
    customers_kept bigint,
    mrr numeric,
    mrr_kept numeric,
    mrr_now numeric
);

-- The outcome of a term: who followed in time, within its days of grace or later, else who had left, and
-- whom there is still time for on as_of. next_…: the term that followed, null for none.
CREATE FUNCTION revenue.renewal_outcome(
    ended_on date, grace_days integer, status text, cancelled_on date, next_kind text,
    next_began_on date, as_of date
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN next_began_on <= ended_on THEN 'on_time'
         WHEN next_kind = 'reactivation'
              OR next_kind = 'change' AND next_began_on > ended_on + grace_days THEN 'reactivated'
         WHEN next_kind IS NOT NULL THEN 'in_grace'
         WHEN status = 'Cancelled' OR cancelled_on <= ended_on THEN 'cancelled'
         WHEN as_of <= ended_on + grace_days THEN 'waiting'
         ELSE 'lapsed' END;

-- The terms that ended in these months, seen on as_of, each with its outcome: what the table above
-- counts. Every term that began is due once, when it ends, unless a change of plan took its place.
-- renewed_by is the term that followed. Who comes back after the month's days of grace counts where
-- it happens, as a reactivation, and no longer here: a month that is closed stays as it was.
CREATE FUNCTION revenue.terms_due(first_month date, last_month date, as_of date)
RETURNS TABLE (service_plan_id bigint, month date, currency text, plan_id bigint, country text,
               ended_on date, outcome text, renewed_by bigint)
LANGUAGE sql STABLE AS $$
    SELECT due.service_plan_id, date_trunc('month', due.end_date::timestamp)::date, due.currency,
           due.plan_id, coalesce(due.country, ''), due.end_date,
           revenue.renewal_outcome(
               due.end_date, prepaid.days_within_term(i.grace_days, due.term_days), due.status,
               s.cancelled_on, next.kind, greatest(next.start_date, next.activated_on),
               terms_due.as_of),
           next.service_plan_id
    FROM prepaid.service_plans due
    JOIN prepaid.subscriptions s ON s.subscription_id = due.subscription_id
    CROSS JOIN prepaid.installation i
    LEFT JOIN prepaid.service_plans next
        ON next.previous_plan_id = due.service_plan_id AND next.activated_on <= terms_due.as_of
        AND next.activated_on < date_trunc('month', due.end_date::timestamp)
                                + make_interval(months => 1, days => i.grace_days)
        AND (next.end_date > next.start_date OR next.activated_on >= next.start_date)
    WHERE due.activated_on <= terms_due.as_of
      AND due.end_date >= terms_due.first_month AND due.end_date <= terms_due.as_of
      AND due.end_date < terms_due.last_month + interval '1 month'
      -- Cut by a change of plan: the customer goes on with another term.
      AND (due.full_end_date IS NULL OR due.status = 'Cancelled')
      -- Paid in advance and cancelled before its first day, it never began.
      AND (due.end_date > due.start_date OR due.activated_on >= due.start_date)
$$;

CREATE VIEW revenue.staged_renewal_outcomes AS
    SELECT * FROM revenue.renewal_outcomes_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_retention AS
    SELECT * FROM revenue.retention_staging WHERE run_id = prepaid.run_id();
CREATE VIEW revenue.staged_cohorts AS
    SELECT * FROM revenue.cohorts_staging WHERE run_id = prepaid.run_id();
