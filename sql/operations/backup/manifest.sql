-- What a backup writes down about the database it was made of, in the snapshot of the dump.

-- name: snapshot
SELECT pg_export_snapshot();

-- name: tables
SELECT table_schema AS schema, table_name AS name FROM information_schema.tables
WHERE table_type = 'BASE TABLE' AND table_schema IN ('prepaid', 'revenue', 'dagster') ORDER BY 1, 2;

-- name: totals
-- Money and states, each as one sentence: nothing of it may differ after a restore.
SELECT format('invoices %s %s: %s over %s net, %s tax, %s in all, %s to pay', status, currency, count(*),
              sum(net), sum(tax), sum(total), sum(payable)) AS total
FROM prepaid.invoices GROUP BY status, currency
UNION ALL
SELECT format('credit notes %s: %s over %s', currency, count(*), sum(total))
FROM prepaid.credit_notes GROUP BY currency
UNION ALL
SELECT format('payment records %s %s: %s over %s', coalesce(outcome, 'without outcome'),
              coalesce(left(currency, 20), 'no currency'), count(*), sum(amount))
FROM prepaid.transactions GROUP BY coalesce(outcome, 'without outcome'),
              coalesce(left(currency, 20), 'no currency')
UNION ALL
SELECT format('service plans %s %s %s: %s over %s net, %s a month', origin, status, currency, count(*),
              sum(net_amount), sum(round(monthly_amount, 10)))
FROM prepaid.service_plans GROUP BY origin, status, currency
UNION ALL
SELECT format('tasks %s %s: %s', kind, coalesce(decision, status), count(*))
FROM prepaid.tasks GROUP BY kind, coalesce(decision, status)
UNION ALL
SELECT format('published MRR %s: %s over %s months', currency, sum(mrr), count(DISTINCT month))
FROM revenue.mrr GROUP BY currency
ORDER BY 1;

-- name: roles
-- The roles that the database's rights name, and the people in its teams. They belong to the server
-- and are in no dump of a database.
SELECT r.rolname AS name, r.rolinherit AS inherits,
       array(SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid AND g.rolname IN
                 (SELECT team FROM prepaid.teams UNION ALL SELECT 'desk')
             ORDER BY 1) AS teams
FROM pg_roles r
WHERE (r.oid IN (SELECT d.refobjid FROM pg_shdepend d
                 WHERE d.refclassid = 'pg_authid'::regclass
                   AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
       OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                  WHERE m.member = r.oid AND g.rolname IN (SELECT team FROM prepaid.teams))
       OR r.rolname = (SELECT pg_get_userbyid(datdba) FROM pg_database
                       WHERE datname = current_database()))
  AND r.rolname !~ '^pg_'
ORDER BY 1;
