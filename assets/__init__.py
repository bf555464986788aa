"""Partitioned assets and their checks: thin, the work is in ``sql/revenue``."""
