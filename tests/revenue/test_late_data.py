"""Closed months that would have other figures today are named; looking changes nothing."""

from collections.abc import Callable
from datetime import date

import dagster as dg
import pytest
from sqlalchemy import Engine

from prepaid_pipeline.operations import invariants
from prepaid_pipeline.orchestration.revenue_jobs import (
    LATE_DATA_OP,
    RANGE_END_TAG,
    RANGE_START_TAG,
    run_config,
)
from prepaid_pipeline.revenue import late_data
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.report.content import versions
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


def changed(engine: Engine, as_of: date) -> list[str]:
    return [str(months) for months in late_data.changed_months(engine, as_of)]


@pytest.fixture
def closed(engine: Engine) -> Engine:
    """January to April 2026 are closed, May is preliminary."""
    insert(
        engine, [Term(D(2026, 1, 5), months=12, price="120.00"), Term(D(2026, 2, 9), customer=2)]
    )
    close(engine, "2026-01", "2026-05")
    return engine


def test_nothing_has_changed(closed: Engine) -> None:
    assert changed(closed, LATER) == []


def test_without_closed_months_there_is_nothing_to_look_at(engine: Engine) -> None:
    insert(engine, HISTORY)
    assert changed(engine, LATER) == []
    close(engine, "2026-05", "2026-05")
    insert(engine, [Term(D(2026, 5, 5), customer=9)])
    assert changed(engine, LATER) == [], "the month is preliminary"


def spoil_terms(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 2), customer=3)])


def spoil_reversals(engine: Engine) -> None:
    """The payment of February is known late, too: that month's cash has changed."""
    land(engine, [record("Success", PAID), record("Refunded", BACK)])


def older_term(engine: Engine) -> None:
    """Ended before the first closed month: only who is new has changed, and with it the cohorts."""
    insert(engine, [Term(D(2025, 6, 1), months=3, customer=2)])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            spoil_terms,
            ["2026-03 to 2026-04 changed since version 1: prepaid backfill 2026-03 2026-04"],
        ),
        (
            spoil_reversals,
            ["2026-02 to 2026-03 changed since version 1: prepaid backfill 2026-02 2026-03"],
        ),
        (
            older_term,
            ["2026-01 to 2026-04 changed since version 1: prepaid backfill 2026-01 2026-04"],
        ),
    ],
)
def test_late_data_is_named_until_a_backfill(
    engine: Engine, change: Callable[[Engine], None], expected: list[str]
) -> None:
    invoice(engine)  # a term of customer 1 from 2026-02-01 on
    insert(engine, [Term(D(2026, 2, 9), customer=2)])
    close(engine, "2026-01", "2026-04")
    assert changed(engine, LATER) == []
    before = published(engine)
    change(engine)
    assert changed(engine, LATER) == expected
    assert published(engine) == before
    assert staged(engine) == 0
    found = {result.name: result.findings for result in invariants.run(engine, context(LATER))}
    assert found[NAME] == expected
    close(engine, "2026-01", "2026-04", LATER)
    assert changed(engine, LATER) == []


def test_months_apart_and_versions_apart_are_told_apart(closed: Engine) -> None:
    insert(closed, [Term(D(2026, 3, 2), "5.00", customer=2)])
    close(closed, "2026-03", "2026-03", LATER)
    with closed.begin() as connection:
        connection.exec_driver_sql("DELETE FROM prepaid.service_plans")
    assert changed(closed, LATER) == [
        "2026-01 to 2026-02 changed since version 1: prepaid backfill 2026-01 2026-02",
        "2026-03 changed since version 2: prepaid backfill 2026-03 2026-03",
        "2026-04 changed since version 1: prepaid backfill 2026-04 2026-04",
    ]


def test_a_look_at_an_earlier_day_asks_for_nothing(closed: Engine) -> None:
    insert(closed, [Term(D(2026, 3, 2), customer=3)])
    assert changed(closed, D(2026, 5, 7)) == []


def test_what_changes_no_figure_is_not_named(closed: Engine) -> None:
    with closed.begin() as connection:
        connection.exec_driver_sql("UPDATE prepaid.plans SET name = 'Another name'")
        connection.exec_driver_sql("UPDATE prepaid.service_plans SET status = 'Expired'")
    assert changed(closed, LATER) == []


def look(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def("notice_late_data").execute_in_process(
        run_config=run_config(LATER, (LATE_DATA_OP,)), instance=instance
    )


def test_the_daily_job_warns_and_marks_the_months(
    definitions: dg.Definitions, instance: dg.DagsterInstance, closed: Engine
) -> None:
    insert(closed, [Term(D(2026, 3, 2), months=2, customer=3)])
    found = look(definitions, instance)
    assert found.success
    (evaluation,) = found.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    sentence = "2026-03 to 2026-04 changed since version 1: prepaid backfill 2026-03 2026-04"
    assert evaluation.description == sentence
    marked = [
        (
            e.event_specific_data.asset_observation.partition,
            e.event_specific_data.asset_observation.description,
        )
        for e in found.all_events
        if e.event_type == dg.DagsterEventType.ASSET_OBSERVATION
    ]
    assert marked == [("2026-03", sentence), ("2026-04", sentence)]
    assert rows(closed, "SELECT max(version) FROM revenue.report_versions") == [(1,)]
    close(closed, "2026-03", "2026-04", LATER)
    (evaluation,) = look(definitions, instance).get_asset_check_evaluations()
    assert evaluation.passed


def test_switched_on_the_sensor_has_them_made_anew(
    definitions: dg.Definitions, instance: dg.DagsterInstance, closed: Engine
) -> None:
    """Ranges apart are runs of their own; a look that finds nothing asks for nothing."""
    location = definitions.get_repository_def()
    sensor = location.get_sensor_def("changed_months")
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED

    def asked() -> list[tuple[str | None, dict[str, str]]]:
        found = look(definitions, instance)
        with dg.build_run_status_sensor_context(
            sensor_name="changed_months",
            dagster_instance=instance,
            dagster_run=found.dagster_run,
            resources=location.get_top_level_resources(),
            dagster_event=found.get_run_success_event(),
        ) as context:
            answers = list(sensor(context))
        return [(a.run_key, dict(a.tags)) for a in answers if isinstance(a, dg.RunRequest)]

    assert asked() == []
    land(closed, [record("Success", f"2026-0{n}-07T10:00:00Z", ref=f"r{n}") for n in (1, 2, 4)])
    ranges = [(tags[RANGE_START_TAG], tags[RANGE_END_TAG]) for _, tags in asked()]
    assert ranges == [("2026-01", "2026-02"), ("2026-04", "2026-04")]
