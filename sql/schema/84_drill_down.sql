-- The service plans behind a published figure: their amounts add up to it, exactly. They act with the
-- owner's rights, for people who read the figures and not the tables of the process; they show
-- references and amounts, and no name or address.

-- As of which day a month's figures were computed, and on which day it was measured.
CREATE FUNCTION revenue.measured(for_month date, OUT month date, OUT as_of date, OUT day date)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    month := date_trunc('month', for_month::timestamp)::date;
    SELECT m.as_of INTO as_of FROM revenue.months m WHERE m.month = measured.month;
    IF as_of IS NULL THEN
        RAISE EXCEPTION 'there are no figures for %: run prepaid backfill % %',
            to_char(month, 'YYYY-MM'), to_char(month, 'YYYY-MM'), to_char(month, 'YYYY-MM');
    END IF;
    day := least(as_of, (month + interval '1 month')::date - 1);
END $$;

-- The terms that were active on the day: of revenue.mrr and revenue.mrr_by_country.
CREATE FUNCTION revenue.plans_behind_mrr(for_month date)
RETURNS TABLE (service_plan_id bigint, customer_ref text, subscription_ref text, plan_code text,
               country text, kind text, start_date date, end_date date, currency text, amount numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT p.service_plan_id, c.customer_ref, s.subscription_ref, l.plan_code, coalesce(p.country, ''),
           p.kind, p.start_date, p.end_date, p.currency, p.monthly_amount
    FROM revenue.measured(for_month) m
    JOIN service_plans p ON p.activated_on <= m.as_of AND p.start_date <= m.day AND p.end_date > m.day
    JOIN subscriptions s USING (subscription_id)
    JOIN plans l ON l.plan_id = p.plan_id
    JOIN customers c ON c.customer_id = p.customer_id
$$;

-- The terms that began in the month: of revenue.plan_activations and revenue.activations_by_country.
CREATE FUNCTION revenue.plans_behind_activations(for_month date)
RETURNS TABLE (service_plan_id bigint, customer_ref text, subscription_ref text, plan_code text,
               country text, kind text, began_on date, start_date date, end_date date, currency text,
               amount numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT p.service_plan_id, c.customer_ref, s.subscription_ref, l.plan_code, coalesce(p.country, ''),
           p.kind, greatest(p.start_date, p.activated_on), p.start_date, p.end_date, p.currency,
           p.net_amount
    FROM revenue.measured(for_month) m
    JOIN service_plans p ON p.activated_on <= m.as_of
        AND (p.start_date >= m.month OR p.activated_on >= m.month)
        AND p.start_date < m.month + interval '1 month'
        AND p.activated_on < m.month + interval '1 month'
        -- One that was cancelled before its start, although paid in advance, never began.
        AND (p.end_date > p.start_date OR p.activated_on >= p.start_date)
    JOIN subscriptions s USING (subscription_id)
    JOIN plans l ON l.plan_id = p.plan_id
    JOIN customers c ON c.customer_id = p.customer_id
$$;

-- What each term gave to, or took from, the revenue of a customer whose revenue has changed since the
-- end of the month before: of revenue.mrr_movements.
CREATE FUNCTION revenue.plans_behind_movements(for_month date)
RETURNS TABLE (movement text, service_plan_id bigint, customer_ref text, subscription_ref text,
               plan_code text, country text, kind text, start_date date, end_date date, currency text,
               amount numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    WITH terms AS (
        SELECT p.*, p.start_date < m.month AND p.end_date >= m.month AS was_active,
               p.start_date <= m.day AND p.end_date > m.day AS is_active,
               -- Active at the end of the month it started in, or of any month before this one.
               p.monthly_amount > 0 AND p.start_date < m.month
                   AND p.end_date >= date_trunc('month', p.start_date::timestamp) + interval '1 month'
                   AS had_revenue
        FROM revenue.measured(for_month) m
        JOIN service_plans p ON p.activated_on <= m.as_of AND p.start_date <= m.day
    ),
    customers_moved AS (
        SELECT t.customer_id, t.currency, CASE
                   WHEN sum(t.monthly_amount) FILTER (WHERE t.was_active) > 0 THEN CASE
                       WHEN coalesce(sum(t.monthly_amount) FILTER (WHERE t.is_active), 0) = 0 THEN 'churn'
                       WHEN moved.amount > 0 THEN 'expansion' ELSE 'contraction' END
                   WHEN bool_or(t.had_revenue) THEN 'reactivation' ELSE 'new' END AS movement
        FROM (
            SELECT customer_id, currency,
                   sum(CASE WHEN is_active THEN monthly_amount ELSE -monthly_amount END) AS amount
            FROM terms WHERE was_active <> is_active
            GROUP BY customer_id, currency
        ) moved
        JOIN terms t USING (customer_id, currency)
        WHERE moved.amount <> 0
        GROUP BY t.customer_id, t.currency, moved.amount
    )
    SELECT v.movement, t.service_plan_id, c.customer_ref, s.subscription_ref, l.plan_code,
           coalesce(t.country, ''), t.kind, t.start_date, t.end_date, t.currency,
           CASE WHEN t.is_active THEN t.monthly_amount ELSE -t.monthly_amount END
    FROM customers_moved v
    JOIN terms t USING (customer_id, currency)
    JOIN subscriptions s USING (subscription_id)
    JOIN plans l ON l.plan_id = t.plan_id
    JOIN customers c ON c.customer_id = t.customer_id
    WHERE t.was_active <> t.is_active
$$;

-- The service plans that were credited: of revenue.credit_notes_issued.
CREATE FUNCTION revenue.plans_behind_credit_notes(for_month date)
RETURNS TABLE (service_plan_id bigint, credit_note_number text, issued_on date, customer_ref text,
               subscription_ref text, plan_code text, country text, currency text, net numeric,
               tax numeric, amount numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT p.service_plan_id, n.credit_note_number, n.issued_on, c.customer_ref, s.subscription_ref,
           l.plan_code, coalesce(p.country, ''), n.currency, n.net, n.tax, n.total
    FROM revenue.measured(for_month) m
    JOIN credit_notes n ON n.issued_on >= m.month AND n.issued_on < m.month + interval '1 month'
        AND n.issued_on <= m.as_of
    JOIN service_plans p USING (service_plan_id)
    JOIN subscriptions s USING (subscription_id)
    JOIN plans l ON l.plan_id = p.plan_id
    JOIN customers c ON c.customer_id = p.customer_id
$$;
