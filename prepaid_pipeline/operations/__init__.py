"""Running an installation: up, serve, doctor, backup, demo, backfill, invariants, erasure."""
