-- Dagster keeps its runs and events in a schema of its own beside the product's. Of two commands at once
-- the second one waits here until the first has committed, and can then fail: it exists.
CREATE SCHEMA IF NOT EXISTS dagster;
