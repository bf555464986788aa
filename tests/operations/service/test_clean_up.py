"""Old runs go with all that Dagster keeps of them; live ones and where figures come from stay."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import BACKFILL_ID_TAG
from sqlalchemy import Engine, text

from prepaid_pipeline.operations.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.orchestration.clean_up import CleanedUp, clean_up
from prepaid_pipeline.people import accounts
from prepaid_pipeline.settings.load import Settings

MONTHS = dg.MonthlyPartitionsDefinition("2026-01-01")


@dg.asset(partitions_def=MONTHS)
def figures() -> None: ...


@dg.asset_check(asset=figures)
def figures_add_up() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset
def index() -> None: ...


@dg.op
def work() -> None: ...


@dg.job
def process_job() -> None:
    work()


@pytest.fixture
def instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    for name, value in prepare_dagster_home(settings).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        yield instance


def runs_of(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def materialise(instance: dg.DagsterInstance, month: str | None) -> str:
    assets: list[Any] = [figures, figures_add_up] if month else [index]
    return dg.materialize(assets, partition_key=month, instance=instance).run_id


def age(engine: Engine, run_id: str, days: float) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE dagster.runs SET end_time = end_time - :s WHERE run_id = :id"),
            {"s": days * 86400, "id": run_id},
        )


def test_what_goes_and_what_stays(instance: dg.DagsterInstance, engine: Engine) -> None:
    first = materialise(instance, "2026-01-01")
    again = materialise(instance, "2026-01-01")
    other_month = materialise(instance, "2026-02-01")
    old_index, new_index = materialise(instance, None), materialise(instance, None)
    worked = process_job.execute_in_process(instance=instance).run_id
    fresh = process_job.execute_in_process(instance=instance).run_id
    backfilled = process_job.execute_in_process(
        instance=instance, tags={BACKFILL_ID_TAG: "abc"}
    ).run_id
    live = instance.create_run_for_job(process_job, status=dg.DagsterRunStatus.STARTED).run_id
    waits = instance.create_run_for_job(process_job, status=dg.DagsterRunStatus.NOT_STARTED).run_id
    everything = runs_of(instance)
    for run_id in everything - {fresh}:
        age(engine, run_id, 91)
    before = datetime.now(UTC) - timedelta(days=90)
    forgotten: list[str] = []
    # In portions of two: kept runs must not stop it.
    done = clean_up(engine, before, forgotten.append, portion=2)
    gone = {first, old_index, worked, backfilled}
    assert set(forgotten) == gone
    assert runs_of(instance) == everything - gone
    assert {again, other_month, new_index, live, waits, fresh} <= runs_of(instance)
    assert done.runs == 4
    assert done.events > 20

    # The figures' history as Dagster shows it.
    assert instance.get_materialized_partitions(figures.key) == {"2026-01-01", "2026-02-01"}
    latest = instance.get_latest_materialization_event(figures.key)
    assert latest is not None
    assert latest.run_id == other_month
    for run_id in gone:
        assert instance.all_logs(run_id) == []
    with engine.connect() as connection:
        left = connection.execute(
            text(
                "SELECT (SELECT count(*) FROM dagster.run_tags WHERE run_id = ANY (:gone)),"
                " (SELECT count(*) FROM dagster.asset_check_executions WHERE run_id = ANY (:gone)),"
                " (SELECT count(*) FROM dagster.asset_event_tags t WHERE NOT EXISTS"
                "  (SELECT FROM dagster.event_logs e WHERE e.id = t.event_id))"
            ),
            {"gone": list(gone)},
        ).one()
    assert left == (0, 0, 0)
    assert clean_up(engine, before) == CleanedUp()


def test_a_backfill_goes_with_the_last_of_its_runs(
    instance: dg.DagsterInstance, engine: Engine
) -> None:
    run_id = process_job.execute_in_process(
        instance=instance, tags={BACKFILL_ID_TAG: "mine"}
    ).run_id
    with engine.begin() as connection:
        for key, status, days in (
            ("mine", "COMPLETED_SUCCESS", 91),
            ("alone", "CANCELED", 91),
            ("running", "REQUESTED", 91),
            ("fresh", "COMPLETED_SUCCESS", 1),
        ):
            connection.execute(
                text(
                    "INSERT INTO dagster.bulk_actions (key, status, timestamp, body) VALUES (:key,"
                    " :status, now() AT TIME ZONE 'UTC' - make_interval(days => :days), '')"
                ),
                {"key": key, "status": status, "days": days},
            )
    before = datetime.now(UTC) - timedelta(days=90)
    assert clean_up(engine, before) == CleanedUp(backfills=1)
    age(engine, run_id, 91)
    assert clean_up(engine, before).backfills == 1
    with engine.connect() as connection:
        left = connection.execute(text("SELECT key FROM dagster.bulk_actions ORDER BY 1"))
        assert list(left.scalars()) == ["fresh", "running"]


def test_sessions_that_are_long_over(instance: dg.DagsterInstance, engine: Engine) -> None:
    accounts.add(engine, "test_ann", "finance")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO prepaid.desk_sessions (token_hash, person, expires_at, idle_seconds)"
                " SELECT sha256(n::text::bytea), 'test_ann',"
                " clock_timestamp() - make_interval(days => n), 60 FROM unnest(ARRAY[-1, 89, 91]) n"
            )
        )
    assert clean_up(engine, datetime.now(UTC) - timedelta(days=90)) == CleanedUp(sessions=1)


def test_the_job(
    instance: dg.DagsterInstance, engine: Engine, settings: Settings, tmp_path: Any
) -> None:
    from prepaid_pipeline.definitions import build_defs

    worked = process_job.execute_in_process(instance=instance).run_id
    logs = settings.dagster_home / "storage" / worked
    assert logs.is_dir()
    job = build_defs().get_repository_def().get_job("clean_up")

    def run(as_of: str | None) -> dict[str, int]:
        config = {"ops": {"delete_old_runs": {"config": {"as_of": as_of}}}}
        done = job.execute_in_process(config, instance=instance)
        (output,) = done.filter_events(lambda e: e.event_type_value == "STEP_OUTPUT")
        return {k: v.value for k, v in output.step_output_data.metadata.items()}

    nothing = {"runs": 0, "events": 0, "backfills": 0, "sessions": 0}
    assert run(None) == nothing
    # A business date that is to come would delete more than anybody meant.
    with pytest.raises(dg.Failure, match="2099-01-01 is after today"):
        run("2099-01-01")
    age(engine, worked, 95)
    started = time.monotonic()
    assert run(None)["runs"] == 1
    assert time.monotonic() - started < 30
    assert not logs.exists()
