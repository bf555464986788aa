"""What the product's event log makes of what a backfill plans: the rows of dagster-postgres."""

import re
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster_postgres import PostgresEventLogStorage
from sqlalchemy import Engine, text

from prepaid_pipeline.operations.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.operations.service.dagster_storage import EventLog
from prepaid_pipeline.settings.load import Settings

_ROWS = (
    "SELECT dagster_event_type, asset_key, partition, step_key, event FROM dagster.event_logs"
    " WHERE run_id = :run ORDER BY id",
    "SELECT asset_key, last_run_id, last_materialization, last_materialization_timestamp"
    " IS NOT NULL FROM dagster.asset_keys ORDER BY 1",
    "SELECT asset_key, check_name, partition, execution_status, evaluation_event,"
    " evaluation_event_storage_id IS NULL, evaluation_event_timestamp AT TIME ZONE 'UTC'"
    " > now() - interval '1 minute' FROM dagster.asset_check_executions"
    " WHERE run_id = :run ORDER BY 1, 2, 3",
    "SELECT count(*) FROM dagster.asset_event_tags",
)
_TAGS = {
    "dagster/asset_partition_range_start": "2026-01-01",
    "dagster/asset_partition_range_end": "2026-05-01",
}


@pytest.fixture
def instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    for name, value in prepare_dagster_home(settings).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        yield instance


def two_assets_and_a_check() -> dg.JobDefinition:
    @dg.multi_asset(
        specs=[dg.AssetSpec("one"), dg.AssetSpec("two")],
        check_specs=[dg.AssetCheckSpec("right", asset="one")],
        partitions_def=dg.MonthlyPartitionsDefinition("2026-01-01", end_date="2026-07-01"),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def both():  # type: ignore[no-untyped-def]
        yield

    job = dg.define_asset_job("make", "*")
    return dg.Definitions(assets=[both], jobs=[job]).resolve_job_def("make")


def planned(instance: dg.DagsterInstance, engine: Engine) -> list[list[str]]:
    """The rows of a run of five months before it begins, without what differs from run to run."""
    run_id = instance.create_run_for_job(two_assets_and_a_check(), tags=_TAGS).run_id
    with engine.connect() as connection:
        tables = [connection.execute(text(sql), {"run": run_id}).all() for sql in _ROWS]
    changing = re.compile(rf'{run_id}|"timestamp": [\d.]+|"batch_id": "\w+"')
    return [[changing.sub("", str(tuple(row))) for row in table] for table in tables]


def test_a_batch_is_stored_as_dagster_postgres_does_it(
    instance: dg.DagsterInstance, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(instance.event_log_storage, EventLog)
    ours = planned(instance, engine)
    assert [len(table) for table in ours] == [2 * 5 + 1, 2, 5, 1]
    monkeypatch.setattr(EventLog, "store_event_batch", PostgresEventLogStorage.store_event_batch)
    assert planned(instance, engine) == ours
