"""Closed months that would have other figures today are named; looking changes nothing."""

from collections.abc import Callable
from datetime import date

import dagster as dg
import pytest
from sqlalchemy import Engine

from prepaid_pipeline import checks, late
from prepaid_pipeline.report import versions
from prepaid_pipeline.revenue import Span
from prepaid_pipeline.revenue_jobs import LATE_DATA_OP, run_config
from tests.revenue.history import RUN, Term, insert, publish, rows
from tests.revenue.test_publishing import HISTORY, published, staged
from tests.revenue.test_reversals import BACK, PAID, invoice, land, record
from tests.world import context

D = date
CLOSED, LATER = D(2026, 5, 8), D(2026, 6, 3)
NAME = "16_closed_months_show_todays_truth"


def close(engine: Engine, first: str, last: str, as_of: date = CLOSED) -> None:
    publish(engine, first, last, as_of)
    span = Span(D.fromisoformat(f"{first}-01"), D.fromisoformat(f"{last}-01"), as_of)
    versions.stage(engine, span, RUN)
    versions.publish(engine, span, RUN, 7)


@pytest.fixture
def closed(engine: Engine) -> Engine:
    """January to April 2026 are closed, May is preliminary."""
    insert(
        engine, [Term(D(2026, 1, 5), months=12, price="120.00"), Term(D(2026, 2, 9), customer=2)]
    )
    close(engine, "2026-01", "2026-05")
    return engine


def test_nothing_has_changed(closed: Engine) -> None:
    assert late.changed_months(closed, LATER) == []


def test_without_closed_months_there_is_nothing_to_look_at(engine: Engine) -> None:
    insert(engine, HISTORY)
    assert late.changed_months(engine, LATER) == []
    close(engine, "2026-05", "2026-05")
    insert(engine, [Term(D(2026, 5, 5), customer=9)])
    assert late.changed_months(engine, LATER) == [], "the month is preliminary"


def spoil_terms(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 2), customer=3)])


def spoil_reversals(engine: Engine) -> None:
    land(engine, [record("Success", PAID), record("Refunded", BACK)])


def older_term(engine: Engine) -> None:
    """Ended before the first closed month: only who is new has changed."""
    insert(engine, [Term(D(2025, 6, 1), months=3, customer=2)])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (spoil_terms, ["2026-03 to 2026-04 changed since version 1: prepaid backfill"
                       " 2026-03 2026-04"]),
        (spoil_reversals, ["2026-03 changed since version 1: prepaid backfill 2026-03 2026-03"]),
        (older_term, ["2026-02 changed since version 1: prepaid backfill 2026-02 2026-02"]),
    ],
)  # fmt: skip
def test_late_data_is_named_until_a_backfill(
    engine: Engine, change: Callable[[Engine], None], expected: list[str]
) -> None:
    invoice(engine)  # a term of customer 1 from 2026-02-01 on
    insert(engine, [Term(D(2026, 2, 9), customer=2)])
    close(engine, "2026-01", "2026-04")
    assert late.changed_months(engine, LATER) == []
    before = published(engine)
    change(engine)
    assert late.changed_months(engine, LATER) == expected
    assert published(engine) == before
    assert staged(engine) == 0
    found = {result.name: result.findings for result in checks.run(engine, context(LATER))}
    assert found[NAME] == expected
    close(engine, "2026-01", "2026-04", LATER)
    assert late.changed_months(engine, LATER) == []


def test_months_apart_and_versions_apart_are_told_apart(closed: Engine) -> None:
    insert(closed, [Term(D(2026, 3, 2), "5.00", customer=2)])
    close(closed, "2026-03", "2026-03", LATER)
    with closed.begin() as connection:
        connection.exec_driver_sql("DELETE FROM prepaid.service_plans")
    assert late.changed_months(closed, LATER) == [
        "2026-01 to 2026-02 changed since version 1: prepaid backfill 2026-01 2026-02",
        "2026-03 changed since version 2: prepaid backfill 2026-03 2026-03",
        "2026-04 changed since version 1: prepaid backfill 2026-04 2026-04",
    ]


def test_a_look_at_an_earlier_day_asks_for_nothing(closed: Engine) -> None:
    insert(closed, [Term(D(2026, 3, 2), customer=3)])
    assert late.changed_months(closed, D(2026, 5, 7)) == []


def test_what_changes_no_figure_is_not_named(closed: Engine) -> None:
    with closed.begin() as connection:
        connection.exec_driver_sql("UPDATE prepaid.plans SET name = 'Another name'")
        connection.exec_driver_sql("UPDATE prepaid.service_plans SET status = 'Expired'")
    assert late.changed_months(closed, LATER) == []


def test_the_daily_job_warns(
    definitions: dg.Definitions, instance: dg.DagsterInstance, closed: Engine
) -> None:
    insert(closed, [Term(D(2026, 4, 2), customer=3)])

    def look() -> dg.AssetCheckEvaluation:
        result = definitions.resolve_job_def("notice_late_data").execute_in_process(
            run_config=run_config(LATER, (LATE_DATA_OP,)), instance=instance
        )
        assert result.success
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation

    found = look()
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert found.description == (
        "2026-04 changed since version 1: prepaid backfill 2026-04 2026-04"
    )
    assert rows(closed, "SELECT max(version) FROM revenue.report_versions") == [(1,)]
    close(closed, "2026-04", "2026-04", LATER)
    assert look().passed
