-- A month's fingerprint: of everything that its figures are made from, and of nothing else. The same
-- inputs have the same one, whenever and however often they are read; two versions of a report with
-- different inputs have different ones. It recognises, it does not seal: who can change the inputs can
-- compute it again.
-- Terms are added up as 64-bit hashes, so that their order does not matter and a range of months takes
-- one scan: a term counts from the month of its start on, its end from the month of that. What is
-- known of a later month (an end that has moved since) leaves an earlier one's fingerprint as it was.
-- Days and moments are numbers in the hashed text: as text they would follow the session's settings.
UPDATE revenue.months_staging s
SET fingerprint = encode(sha256(convert_to(concat_ws(' | ',
        to_char(s.month, 'YYYY-MM'), f.terms, f.hash,
        (SELECT string_agg(concat_ws(' ', t.provider, t.provider_ref, t.status,
                    extract(epoch FROM t.occurred_at), t.amount, t.currency, t.invoice_number), ', '
                    ORDER BY t.provider, t.provider_ref, t.status, t.occurred_at, t.amount, t.currency,
                             t.invoice_number)
         FROM prepaid.transactions t
         WHERE t.status IN ('Refunded', 'Chargeback', 'ChargebackReversed', 'Failed')
           -- A day more at both ends: by the index, whatever the time zone.
           AND t.occurred_at >= s.month::timestamp AT TIME ZONE 'UTC' - interval '1 day'
           AND t.occurred_at < s.month::timestamp AT TIME ZONE 'UTC' + interval '1 month 1 day'
           AND date_trunc('month', prepaid.business_date(t.occurred_at)::timestamp) = s.month
           AND prepaid.business_date(t.occurred_at) <= CAST(:as_of AS date)),
        -- Whether such a record counts hangs on records of other months: on what it came to.
        (SELECT string_agg(concat_ws(' ', r.currency, r.kind, r.records, r.amount), ', '
                           ORDER BY r.currency, r.kind)
         FROM revenue.payment_reversals_staging r WHERE (r.run_id, r.month) = (s.run_id, s.month)),
        (SELECT string_agg(concat_ws(' ', n.credit_note_number, n.currency, n.net, n.tax), ', '
                           ORDER BY n.credit_note_number)
         FROM prepaid.credit_notes n
         WHERE n.issued_on >= s.month AND n.issued_on < s.month + interval '1 month'
           AND n.issued_on <= CAST(:as_of AS date))
    ), 'UTF8')), 'hex')
FROM (
    SELECT m.month, coalesce(sum(e.terms) OVER w, 0) AS terms, coalesce(sum(e.hash) OVER w, 0) AS hash
    FROM revenue.months_staging m
    LEFT JOIN (
        SELECT greatest(date_trunc('month', event.day::timestamp)::date, CAST(:first_month AS date))
                   AS month,
               sum(event.terms) AS terms, sum(event.hash) AS hash
        FROM (
            -- By days first: whole numbers of 64 bits add up fast, those that are multiplied do not.
            SELECT start_date, end_date, count(*) AS terms, sum(hash) AS hash
            FROM (
                SELECT start_date, end_date, ('x' || left(md5(concat_ws(' ', customer_id, plan_id, kind,
                           start_date - date '2000-01-01', activated_on - date '2000-01-01',
                           currency, country, monthly_amount, net_amount)), 16))::bit(64)::bigint
                           AS hash
                FROM pg_temp.terms_read
                WHERE start_date < CAST(:last_month AS date) + interval '1 month'
            ) t
            GROUP BY start_date, end_date
        ) t
        CROSS JOIN LATERAL (VALUES
            (start_date, terms, hash), (end_date, 0, hash * (end_date - date '2000-01-01'))
        ) event (day, terms, hash)
        WHERE event.day < CAST(:last_month AS date) + interval '1 month'
        GROUP BY 1
    ) e ON e.month = m.month
    WHERE m.run_id = :run_id
    WINDOW w AS (ORDER BY m.month)
) f
WHERE s.run_id = :run_id AND s.month = f.month;
