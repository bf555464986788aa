"""Whatever the number of months, a backfill reads the terms once."""

from datetime import date

import pytest
from sqlalchemy import Engine, text

from prepaid_pipeline.database import queries
from prepaid_pipeline.revenue import figures
from prepaid_pipeline.revenue.figures import STAGES, Span
from tests.revenue.history import RUN, Term, insert

D = date
# How often this session began to scan the table, by whatever way.
_SCANS = text(
    "SELECT coalesce(sum(seq_scan + coalesce(idx_scan, 0)), 0) FROM pg_stat_xact_user_tables"
    " WHERE schemaname = 'prepaid' AND relname = 'service_plans'"
)


@pytest.mark.parametrize("last", [D(2025, 1, 1), D(2030, 12, 1)], ids=["a month", "72 months"])
def test_the_terms_are_scanned_once(engine: Engine, last: date) -> None:
    insert(engine, [Term(D(2025, 1 + n % 12, 3), customer=n, country="DE") for n in range(60)])
    with engine.connect() as connection:
        # A worker of a parallel scan would count its own part of it.
        connection.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
        before = connection.execute(_SCANS).scalar_one()
        figures.compute(connection, Span(D(2025, 1, 1), last, D(2031, 1, 31)), RUN)
        assert connection.execute(text("SELECT count(*) FROM revenue.mrr_staging")).scalar()
        assert connection.execute(_SCANS).scalar_one() - before == 1


def test_only_one_statement_names_them() -> None:
    """The plan could hide a second scan of a table that is small in a test."""
    naming = [
        part.name
        for script in STAGES
        for part in queries.script(script)
        if "prepaid.service_plans" in part.clause.text
    ]
    assert naming == ["read_terms"]
