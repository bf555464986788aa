"""A backup with pg_dump, what must be true of it, and the proof that it can be restored."""
