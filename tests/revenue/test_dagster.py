"""The assets through Dagster: a range is one run, a failed check publishes nothing, schedules ask
for the months that are open or due.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine

from prepaid_pipeline.definitions import build_defs
from prepaid_pipeline.orchestration.partitions import monthly
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.orchestration.revenue_jobs import (
    CHECK_OP,
    RANGE_END_TAG,
    RANGE_START_TAG,
    REVENUE_OPS,
    range_tags,
    run_config,
)
from prepaid_pipeline.revenue.report.formats import drawing
from prepaid_pipeline.settings.load import Settings, load
from tests.conftest import TEMPLATE
from tests.databases import Databases
from tests.revenue.conftest import environment
from tests.revenue.history import Term, insert, mrr, rows

D = date
REVENUE_ASSETS = {
    "mrr",
    "mrr_by_country",
    "mrr_movements",
    "plan_activations",
    "activations_by_country",
    "payment_reversals",
    "credit_notes_issued",
    "renewal_outcomes",
    "retention",
    "deferred_revenue",
    "monthly_revenue_report",
}
TERMS = [Term(D(2026, 3, 5)), Term(D(2026, 4, 5), kind="renewal"), Term(D(2026, 4, 9), customer=2)]
SPRING, AS_OF = (D(2026, 3, 1), D(2026, 5, 1)), D(2026, 5, 20)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    months: tuple[date, date] = SPRING,
    job: str = "materialise_mrr",
    as_of: date = AS_OF,
) -> dg.ExecuteInProcessResult:
    ops = (*REVENUE_OPS, CHECK_OP) if job == "close_month" else REVENUE_OPS
    return definitions.resolve_job_def(job).execute_in_process(
        run_config={**run_config(as_of, ops), **QUIET},
        tags=range_tags(*months),
        instance=instance,
        raise_on_error=False,
    )


def materialised(result: dg.ExecuteInProcessResult) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for event in result.get_asset_materialization_events():
        assert event.asset_key is not None
        found.setdefault(event.asset_key.to_user_string(), []).append(str(event.partition))
    return found


@dataclass
class Spring:
    """One run over three months, for the tests that only look at what it left."""

    result: dg.ExecuteInProcessResult
    runs: int
    engine: Engine
    reports: Path


@pytest.fixture(scope="module")
def spring(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spring]:
    home = tmp_path_factory.mktemp("spring")
    with (
        pytest.MonkeyPatch.context() as patch,
        databases.copy_of(TEMPLATE) as database,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        patch.setattr(drawing, "PROCESSES", 0)
        environment(patch, home, database.url)
        insert(database.engine, TERMS)
        result = run(build_defs(), instance)
        assert result.success
        yield Spring(result, len(instance.get_runs()), database.engine, home / "reports")


def test_a_range_of_months_is_one_run(spring: Spring) -> None:
    months = ["2026-03", "2026-04", "2026-05"]
    assert materialised(spring.result) == {asset: months for asset in REVENUE_ASSETS}
    assert spring.runs == 1
    assert [mrr(spring.engine, month)[1] for month in months] == [10, 20, 0]
    assert "Preliminary" in (spring.reports / "2026-05" / "report.html").read_text()
    assert "Closed" in (spring.reports / "2026-03" / "report.html").read_text()


def test_a_materialisation_shows_its_figures_and_the_report(spring: Spring) -> None:
    shown: dict[tuple[str, str], Any] = {}
    for event in spring.result.get_asset_materialization_events():
        found = event.step_materialization_data.materialization
        shown[found.asset_key.to_user_string(), str(found.partition)] = found.metadata
    assert shown["mrr", "2026-04"]["mrr USD"].value == 20.0
    assert shown["mrr", "2026-03"]["mrr USD"].value == 10.0
    assert shown["mrr", "2026-05"]["mrr USD"].value == 0.0
    assert shown["plan_activations", "2026-04"]["renewal USD"].value == 1.0
    assert shown["mrr", "2026-04"]["arr USD"].value == 240.0
    assert shown["mrr", "2026-04"]["average_per_customer USD"].value == 10.0
    assert "average_per_customer USD" not in shown["mrr", "2026-05"], "there is no customer"
    assert shown["mrr_by_country", "2026-04"]["mrr US USD"].value == 20.0
    assert shown["mrr_movements", "2026-05"]["churn USD"].value == -20.0
    assert shown["activations_by_country", "2026-04"]["new US USD"].value == 1.0
    table = shown["mrr", "2026-04"]["figures"].value
    assert "| 2026-04 | USD | 20.00 | 10.00 | 2 | 1 | 1 | 0 | 0 | 0.00 | 0.00 |" in table
    assert "| 2026-05 | USD | 0.00 | -20.00 | 0 | 0 | 0 | 0 | 0 | 0.00 | 0.00 |" in table
    report = shown["monthly_revenue_report", "2026-04"]
    assert report["report"].path.endswith("2026-04/report.html")
    assert report["version"].value == 1


def test_a_failed_check_leaves_the_last_good_figures(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    engine: Engine,
    installation: Settings,
) -> None:
    insert(engine, TERMS)
    assert run(definitions, instance).success
    before = rows(engine, "SELECT * FROM revenue.mrr ORDER BY 1, 2, 3")
    page = installation.home / "reports" / "2026-04" / "report.html"
    content = page.read_bytes()
    insert(engine, [Term(D(2026, 4, 1), "99.00", customer=3)])
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION revenue.spoil() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN NEW.amount := NEW.amount + 1; RETURN NEW; END';"
            " CREATE TRIGGER spoil BEFORE INSERT ON revenue.mrr_movements_staging FOR EACH ROW"
            " WHEN (NEW.month = '2026-04-01') EXECUTE FUNCTION revenue.spoil()"
        )
    result = run(definitions, instance)
    assert not result.success
    assert materialised(result) == {}
    (failure,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    assert failure.step_key == "monthly_figures"
    error = failure.step_failure_data.error
    assert error is not None
    assert error.cls_name == "DagsterAssetCheckFailedError"
    (evaluation,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert evaluation.check_name == "start_and_movements_make_the_end"
    assert evaluation.metadata["months"].value == "2026-04"
    assert "| month | currency |" in str(evaluation.metadata["sample"].value)
    assert rows(engine, "SELECT * FROM revenue.mrr ORDER BY 1, 2, 3") == before
    assert page.read_bytes() == content
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER spoil ON revenue.mrr_movements_staging")
    assert run(definitions, instance).success
    assert mrr(engine, "2026-04") == (3, Decimal("119.00"))


def test_close_month_checks_the_inputs_and_closes(
    definitions: dg.Definitions, instance: dg.DagsterInstance, engine: Engine
) -> None:
    insert(engine, [*TERMS, Term(D(2026, 4, 1), end=D(2026, 6, 1), customer=3)])
    result = run(definitions, instance, (D(2026, 4, 1), D(2026, 4, 1)), job="close_month")
    assert result.success
    failed = {e.check_name: e for e in result.get_asset_check_evaluations() if not e.passed}
    assert set(failed) == {
        "customers_can_be_reached_by_email",
        "terms_are_as_long_as_their_plan_says",
        "plans_that_renew_have_a_price",
        "countries_of_customers_have_a_tax_rate",
    }
    assert all(e.severity == dg.AssetCheckSeverity.WARN for e in failed.values())
    assert rows(engine, "SELECT month, version FROM revenue.report_versions") == [
        (D(2026, 4, 1), 1)
    ]


def tick(definitions: dg.Definitions, name: str, at: datetime, settings: Settings) -> Any:
    schedule = definitions.get_repository_def().get_schedule_def(name)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=at,
            resources={"database": Database()},
            repository_def=definitions.get_repository_def(),
        ) as context,
    ):
        return schedule.evaluate_tick(context)


def ranges(data: Any) -> list[tuple[str, str]]:
    return [(r.tags[RANGE_START_TAG], r.tags[RANGE_END_TAG]) for r in data.run_requests]


def test_the_hourly_schedule_takes_the_months_that_are_open(
    definitions: dg.Definitions, installation: Settings
) -> None:
    at = datetime(2026, 11, 7, 10, 5, tzinfo=UTC)
    data = tick(definitions, "materialise_mrr_hourly", at, installation)
    assert ranges(data) == [("2026-10", "2026-11")]
    config = data.run_requests[0].run_config["ops"]
    assert {op: config[op]["config"]["as_of"] for op in config} == dict.fromkeys(
        REVENUE_OPS, "2026-11-07"
    )
    data = tick(definitions, "materialise_mrr_hourly", at + timedelta(days=1), installation)
    assert ranges(data) == [("2026-11", "2026-11")]


def test_the_close_asks_for_every_month_that_is_due(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    engine: Engine,
    installation: Settings,
) -> None:
    name, at = "close_month_daily", datetime(2026, 5, 8, 1, 30, tzinfo=UTC)
    assert ranges(tick(definitions, name, at, installation)) == [], "there are no terms"
    insert(engine, TERMS)
    assert ranges(tick(definitions, name, at, installation)) == [("2026-03", "2026-04")]
    assert ranges(tick(definitions, name, at - timedelta(days=1), installation)) == [
        ("2026-03", "2026-03")
    ]
    april = (D(2026, 4, 1), D(2026, 4, 1))
    assert run(definitions, instance, april, "close_month", D(2026, 5, 8)).success
    assert ranges(tick(definitions, name, at, installation)) == [("2026-03", "2026-03")]
    in_july = datetime(2026, 7, 8, 1, 30, tzinfo=UTC)
    assert ranges(tick(definitions, name, in_july, installation)) == [
        ("2026-03", "2026-03"),
        ("2026-05", "2026-06"),
    ]


def test_the_running_month_is_a_partition(installation: Settings) -> None:
    months = monthly(load())
    keys = months.get_partition_keys(current_time=datetime(2026, 11, 1, tzinfo=UTC))
    assert (keys[0], keys[-1]) == ("2025-01", "2026-11")


def test_the_graph_reads_like_the_process(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    keys = {key.to_user_string(): key for key in graph.get_all_asset_keys()}
    assert set(keys) >= REVENUE_ASSETS | {"customers", "service_plans", "invoices", "audit_log"}
    for name, key in keys.items():
        node = graph.get(key)
        assert node.description, name
        assert node.owners, name
        assert node.kinds, name
        assert node.group_name != "default", name
        assert node.is_executable == (name in REVENUE_ASSETS)
    report = graph.get(keys["monthly_revenue_report"])
    assert {k.to_user_string() for k in report.parent_keys} == REVENUE_ASSETS - {
        "monthly_revenue_report"
    }
    ancestors = graph.get_ancestor_asset_keys(keys["monthly_revenue_report"])
    assert {"service_plans", "customers"} <= {k.to_user_string() for k in ancestors}
