"""Alembic's environment and its revisions; each revision runs one file of ``sql/migrations``."""
