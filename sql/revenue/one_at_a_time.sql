-- One computation of monthly figures at a time (an hourly run against a backfill): whoever staged
-- later publishes later. The number is ours alone: 'prepaid revenue' has no meaning to PostgreSQL.
SELECT pg_advisory_xact_lock(7281204);
