"""Faults that are made for real, and what must be true after each of them: docs/reliability.md."""
