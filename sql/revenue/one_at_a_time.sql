-- One computation of monthly figures at a time (an hourly run against a backfill): whoever staged
-- later publishes later.
SELECT prepaid.take_lock('monthly figures');
