"""Benchmarks: the process against a plain SQL script, the revenue SQL against plain queries."""
