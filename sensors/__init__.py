"""Sensors: they look at state, write nothing, and ask for at most one run per queue."""
