"""What is measured agrees with what there is, and tells nobody's name."""

import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.operations.service import metrics
from prepaid_pipeline.operations.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.settings.load import Settings
from tests.audit.writers import write
from tests.mail.conftest import free_port
from tests.operations.service.conftest import Command
from tests.world import TODAY, World

Measured = dict[tuple[str, ...], float]


def measure(text: str) -> Measured:
    """(name, label …) -> value, read as Prometheus reads it."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def busy(world: World) -> World:
    """Plans in every state, held ones, tasks and mails that wait."""
    world.tax_rate("0.0725")
    for _ in range(4):
        world.due_renewal(email="ada@example.com")
    world.due_renewal(email=None)
    plans = world.open()
    world.pay_and_approve(plans[0])
    world.settle()
    world.cancel(plans[1])
    return world


def test_they_agree_with_the_tables(busy: World, engine: Engine, settings: Settings) -> None:
    text = metrics.text(engine, settings)
    found = measure(text)
    for status in ("Pending", "Processing", "Active", "Expired", "Cancelled"):
        counted = busy.sql(
            "SELECT count(*) FROM prepaid.service_plans WHERE status = :status", status=status
        )
        assert found["prepaid_plans", status] == counted, status
    assert found["prepaid_plans", "Cancelled"] == 1
    assert found["prepaid_held_plans", "no_email"] == 1
    assert found["prepaid_open_tasks", "quality_check"] == 1
    assert 0 < found["prepaid_open_task_oldest_seconds", "payment_verification"] < 300
    assert found["prepaid_mails", "pending"] == 1
    assert found["prepaid_unfinished_batches",] == 0
    assert found["prepaid_database_up",] == 1
    assert found["prepaid_unsettled_plans",] >= 2
    assert busy.sql("SELECT count(*) FROM prepaid.customers WHERE email = 'ada@example.com'") == 4
    assert "ada@" not in text
    assert "example.com" not in text


def test_the_command_prints_them(busy: World, prepaid: Command) -> None:
    code, output, _ = prepaid("metrics")
    assert code == 0
    assert measure(output)["prepaid_plans", "Active"] == 6


@pytest.fixture
def instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    for name, value in prepare_dagster_home(settings).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_jobs_and_runs(engine: Engine, instance: dg.DagsterInstance, settings: Settings) -> None:
    broken = False

    @dg.op
    def work() -> None:
        if broken:
            raise ValueError

    @dg.job
    def first() -> None:
        work()

    @dg.job
    def second() -> None:
        work()

    first.execute_in_process(instance=instance)
    second.execute_in_process(instance=instance)
    broken = True
    second.execute_in_process(instance=instance, raise_on_error=False)
    instance.create_run_for_job(first, status=dg.DagsterRunStatus.STARTED)
    found = measure(metrics.text(engine, settings))
    assert (found["prepaid_job_failed", "first"], found["prepaid_job_failed", "second"]) == (0, 1)
    assert 0 < found["prepaid_job_last_success_seconds", "second"] < 60
    assert found["prepaid_job_last_success_timestamp_seconds", "first"] > 1_700_000_000
    assert found["prepaid_live_runs", "STARTED"] == 1


def test_served_over_http_and_without_a_database(settings: Settings, busy: World) -> None:
    port = free_port()
    server = metrics.serve(busy.engine, settings, port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            assert page.headers["content-type"].startswith("text/plain; version=")
            assert measure(page.read().decode())["prepaid_plans", "Active"] == 6
    finally:
        server.shutdown()
        server.server_close()
    from prepaid_pipeline.database import connections

    nowhere = connections.engine_for(busy.engine.url.set(database="nowhere"))
    found = measure(metrics.text(nowhere, settings))
    nowhere.dispose()
    assert found["prepaid_database_up",] == 0
    assert set(found) == {("prepaid_database_up",), ("prepaid_scrape_seconds",)}


def audit_metrics(engine: Engine, settings: Settings) -> dict[str, float]:
    found = measure(metrics.text(engine, settings))
    said = {
        name[0].removeprefix("prepaid_audit_"): value
        for name, value in found.items()
        if name[0].startswith("prepaid_audit_")
    }
    assert said.pop("seal_age_seconds", 0) < 300
    return said


def test_the_age_of_the_newest_anchor(engine: Engine, settings: Settings) -> None:
    write(engine, 3)
    assert audit_metrics(engine, settings) == {"unsealed_entries": 3, "unanchored_entries": 3}
    seals.seal(engine)
    assert audit_metrics(engine, settings) == {"unsealed_entries": 0, "unanchored_entries": 3}
    anchors.anchor(engine, settings, TODAY)
    found = audit_metrics(engine, settings)
    assert 0 <= found.pop("anchor_age_seconds") < 60
    assert found == {"unsealed_entries": 0, "unanchored_entries": 0}
    # Nothing was anchored since yesterday, and 2 entries are sealed and 1 is not.
    (file,) = Path(settings.reports, "anchors").iterdir()
    yesterday = time.time() - 27 * 3600
    os.utime(file, (yesterday, yesterday))
    write(engine, 2)
    seals.seal(engine)
    write(engine)
    found = audit_metrics(engine, settings)
    assert 27 * 3600 <= found.pop("anchor_age_seconds") < 27 * 3600 + 60
    assert found == {"unsealed_entries": 1, "unanchored_entries": 3}
    anchors.anchor(engine, settings, TODAY)
    found = audit_metrics(engine, settings)
    assert found.pop("anchor_age_seconds") < 60
    assert found == {"unsealed_entries": 0, "unanchored_entries": 0}


def test_a_store_that_does_not_answer_takes_no_other_metric_along(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(engine, 3)
    anchors.anchor(engine, settings, TODAY)
    nowhere = settings.model_copy(update={"reports": "nonesuch://reports"})
    assert audit_metrics(engine, nowhere) == {"unsealed_entries": 0}
    monkeypatch.setattr(metrics, "_STORE_SECONDS", 0.05)
    monkeypatch.setattr(anchors, "latest", lambda _: time.sleep(1))
    assert audit_metrics(engine, settings) == {"unsealed_entries": 0}
