"""Staging and publishing: all months or none, again without a trace, any range the same figures."""

import threading
from datetime import date

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.revenue import figures
from prepaid_pipeline.revenue.figures import Span, closes_on, first_open_month, last_day, next_month
from tests.revenue.history import Term, insert, mrr, publish, rows

D = date
TABLES = (
    "mrr",
    "mrr_by_country",
    "mrr_movements",
    "mrr_bridge",
    "plan_activations",
    "activations_by_country",
    "renewal_outcomes",
    "retention",
    "cohorts",
    "deferred_revenue",
    "reconciliation",
    "payment_reversals",
    "credit_notes_issued",
)
FROM_TERMS = TABLES[:11]
HISTORY = [
    Term(D(2025, 1 + n % 12, 1 + n % 28), f"{10 + n}.50", (1, 3, 12)[n % 3], customer=n % 7)
    for n in range(40)
]


def published(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    select = "SELECT * FROM revenue.{} ORDER BY 1, 2, 3"
    return {table: rows(engine, select.format(table)) for table in TABLES}


def staged(engine: Engine) -> int:
    tables = (*TABLES, "months", "control", "retention_control", "monthly_report")
    count = "SELECT count(*) FROM revenue.{}_staging"
    return sum(rows(engine, count.format(table))[0][0] for table in tables)


def test_again_is_the_same(engine: Engine) -> None:
    insert(engine, HISTORY)
    publish(engine, "2025-01", "2026-06")
    before = published(engine)
    publish(engine, "2025-01", "2026-06")
    assert published(engine) == before
    assert all(before[table] for table in FROM_TERMS)
    assert staged(engine) == 0


@pytest.mark.parametrize(
    "ranges",
    [
        pytest.param([("2025-01", "2025-07"), ("2025-08", "2026-06")], id="two halves"),
        pytest.param([("2025-06", "2026-06"), ("2025-01", "2025-05")], id="the later one first"),
        pytest.param(
            [(f"{y}-{m:02}",) * 2 for y in (2025, 2026) for m in range(1, 13)][:18],
            id="month by month",
        ),
    ],
)
def test_partial_ranges_give_the_figures_of_the_whole(
    engine: Engine, ranges: list[tuple[str, str]]
) -> None:
    insert(engine, HISTORY)
    publish(engine, "2025-01", "2026-06", as_of=D(2026, 7, 31))
    whole = published(engine)
    for table in (*TABLES, "months"):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM revenue.{table}")  # noqa: S608
    for first, last in ranges:
        publish(engine, first, last, as_of=D(2026, 7, 31))
    assert published(engine) == whole


def test_an_empty_month_is_made_and_old_rows_go(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 1))])
    publish(engine, "2026-03", "2026-05")
    assert mrr(engine, "2026-03")[0] == 1
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM prepaid.service_plans")
    publish(engine, "2026-03", "2026-05")
    assert published(engine) == {table: [] for table in TABLES}
    assert len(rows(engine, "SELECT month FROM revenue.months")) == 3


def test_other_months_stay_as_they_are(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 1), months=12)])
    publish(engine, "2026-03", "2026-05")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM prepaid.service_plans")
    publish(engine, "2026-04", "2026-04", as_of=D(2026, 5, 31))
    assert [mrr(engine, f"2026-0{n}")[0] for n in (3, 4, 5)] == [1, 0, 1]


def test_a_failure_while_publishing_publishes_nothing(engine: Engine) -> None:
    insert(engine, HISTORY)
    publish(engine, "2025-01", "2025-12")
    before = published(engine)
    figures.stage(engine, Span(D(2025, 3, 1), D(2025, 6, 1), D(2025, 12, 31)), "bad")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE revenue.plan_activations_staging SET kind = 'odd'")
    with pytest.raises(Exception, match="violates check constraint"):
        figures.publish(engine, "bad")
    assert published(engine) == before


def test_one_computation_at_a_time(engine: Engine) -> None:
    """A second one waits for the first, so that the later snapshot is published later."""
    order = []

    def second() -> None:
        with figures.one_at_a_time(engine):
            order.append("second")

    with figures.one_at_a_time(engine):
        waiting = threading.Thread(target=second)
        waiting.start()
        while not rows(
            engine,
            "SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'",
        ):
            pass
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_staged_rows_of_a_failed_run_go_after_a_week(engine: Engine) -> None:
    insert(engine, HISTORY)
    figures.stage(engine, Span(D(2025, 3, 1), D(2025, 6, 1), D(2025, 12, 31)), "failed")
    assert staged(engine) > 0
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE revenue.months_staging SET staged_at = staged_at - interval '8 days'"
        )
    publish(engine, "2025-01", "2025-01")
    assert staged(engine) == 0


def test_a_range_must_have_begun_and_be_in_order() -> None:
    with pytest.raises(UnknownThing, match="2026-07 has not begun on 2026-06-30"):
        Span(D(2026, 5, 1), D(2026, 7, 1), D(2026, 6, 30))
    with pytest.raises(UnknownThing, match="the first month is after the last"):
        Span(D(2026, 6, 1), D(2026, 5, 1), D(2026, 6, 30))
    span = Span(D(2025, 12, 1), D(2026, 2, 1), D(2026, 2, 14))
    assert span.months() == [D(2025, 12, 1), D(2026, 1, 1), D(2026, 2, 1)]
    assert span.until == D(2026, 2, 14)
    assert Span(D(2024, 2, 1), D(2024, 2, 1), D(2026, 2, 14)).until == D(2024, 2, 29)


@pytest.mark.parametrize("grace_days", [0, 1, 7, 31, 45])
def test_the_first_open_month_is_the_first_that_does_not_close_yet(grace_days: int) -> None:
    assert closes_on(D(2026, 10, 1), 7) == D(2026, 11, 8)
    for ordinal in range(D(2024, 1, 1).toordinal(), D(2025, 3, 1).toordinal()):
        as_of = date.fromordinal(ordinal)
        month = D(2022, 1, 1)
        while closes_on(month, grace_days) <= as_of:
            month = next_month(month)
        assert first_open_month(as_of, grace_days) == month
    assert last_day(D(2026, 12, 1)) == D(2026, 12, 31)


def test_figures_as_of_an_earlier_day_do_not_replace_later_ones(engine: Engine) -> None:
    insert(
        engine, [Term(D(2026, 3, 1)), Term(D(2026, 3, 9), activated_on=D(2026, 4, 6), customer=2)]
    )
    publish(engine, "2026-03", "2026-03", as_of=D(2026, 4, 8))
    before = published(engine)
    kept = publish(engine, "2026-02", "2026-03", as_of=D(2026, 4, 1))
    assert [str(month) for month in kept] == [
        "2026-03 keeps its figures as of 2026-04-08: those as of 2026-04-01 know less. Use --replay"
        " (prepaid backfill) to replace them anyway."
    ]
    assert published(engine) == before
    months = "SELECT month, as_of FROM revenue.months ORDER BY 1"
    assert rows(engine, months) == [(D(2026, 2, 1), D(2026, 4, 1)), (D(2026, 3, 1), D(2026, 4, 8))]
    assert staged(engine) == 0
    assert publish(engine, "2026-03", "2026-03", as_of=D(2026, 4, 8)) == []


def test_a_replay_replaces_later_figures(engine: Engine) -> None:
    insert(
        engine, [Term(D(2026, 3, 1)), Term(D(2026, 3, 9), activated_on=D(2026, 4, 6), customer=2)]
    )
    publish(engine, "2026-03", "2026-03", as_of=D(2026, 4, 8))
    assert mrr(engine, "2026-03")[0] == 2
    assert publish(engine, "2026-03", "2026-03", as_of=D(2026, 4, 1), replay=True) == []
    assert mrr(engine, "2026-03")[0] == 1
