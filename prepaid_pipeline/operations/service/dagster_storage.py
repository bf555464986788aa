"""Dagster's storage, as dagster-postgres makes it, faster where a backfill writes many events, and
with the name of whoever launches something in the UI.

A range of months has an event per asset and month before it begins, as one batch, and ten more per
month. dagster-postgres 0.29 writes each event of such a batch, and every other event, on two or
three connections of its own.

Runs, re-runs and backfills come to be in a dozen places of Dagster, from tags that the browser
sends or an earlier run had. They all end here: what is written says who asked for it.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from dagster import DagsterEventType, DagsterRun, StringSource
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._serdes import ConfigurableClassData, serialize_value
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
)
from dagster_postgres.utils import create_pg_engine

# Who is signed in where something is launched; None in all other processes and places.
launched_by: ContextVar[str | None] = ContextVar("launched_by", default=None)
# Dagster's UI shows it as the one who launched a run.
USER_TAG = "user"
_ASSET = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
_CHECK = DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED


class EventLog(PostgresEventLogStorage):
    """The event log of the instance, on a connection that is kept."""

    def __init__(self, postgres_url: str) -> None:
        super().__init__(postgres_url)
        self._engine = create_pg_engine(
            postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            max_overflow=-1,
            # The daemon outlives a restart of the database.
            pool_pre_ping=True,
        )

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """What is planned in one statement per table, and one per asset; others as ever."""
        planned = [e for e in events if e.dagster_event_type in (_ASSET, _CHECK)]
        if planned:
            self._store_planned(planned)
        if others := [e for e in events if e.dagster_event_type not in (_ASSET, _CHECK)]:
            super().store_event_batch(others)

    def _store_planned(self, events: Sequence[EventLogEntry]) -> None:
        insert = SqlEventLogStorageTable.insert().returning(
            SqlEventLogStorageTable.c.id, sort_by_parameter_order=True
        )
        with self._connect() as connection:
            ids = connection.execute(insert, [self._event_to_row(e) for e in events]).scalars()
            stored = list(zip(events, ids, strict=True))
        checks = [row for e, i in stored if e.dagster_event_type == _CHECK for row in _checks(e, i)]
        # Of each asset its table knows the last event only. What is planned has no tags.
        assets = {
            e.get_dagster_event().asset_key: (e, i)
            for e, i in stored
            if e.dagster_event_type == _ASSET
        }
        with self.index_transaction() as connection:
            if checks:
                connection.execute(AssetCheckExecutionsTable.insert(), checks)
            for event, event_id in assets.values():
                self._store_asset_event(connection, event, event_id)

    def dispose(self) -> None:
        super().dispose()
        self._engine.dispose()


def _checks(event: EventLogEntry, event_id: int) -> list[dict[str, Any]]:
    """A planned check's rows, one per month: the event in each of them is written out once."""
    planned = event.get_dagster_event().asset_check_planned_data
    months = planned.partitions_subset.get_partition_keys() if planned.partitions_subset else [None]
    row = {
        "asset_key": planned.asset_key.to_string(),
        "check_name": planned.check_name,
        "run_id": event.run_id,
        "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
        "evaluation_event": serialize_value(event),
        "evaluation_event_timestamp": datetime.fromtimestamp(event.timestamp, UTC).replace(
            tzinfo=None
        ),
        "evaluation_event_storage_id": event_id,
    }
    return [{**row, "partition": month} for month in months]


class Runs(PostgresRunStorage):
    """The runs and backfills of the instance; what a person launched has their name."""

    def add_run(self, dagster_run: DagsterRun) -> DagsterRun:
        return super().add_run(dagster_run.with_tags(_with_launcher(dagster_run.tags)))

    def add_backfill(self, partition_backfill: PartitionBackfill) -> None:
        tags = _with_launcher(partition_backfill.tags)
        super().add_backfill(partition_backfill._replace(tags=tags))


def _with_launcher(tags: Mapping[str, str]) -> dict[str, str]:
    person = launched_by.get()
    return dict(tags) if person is None else {**tags, USER_TAG: person}


class Storage(DagsterPostgresStorage):
    """Runs, events and ticks in PostgreSQL; ``dagster.yaml`` names it."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        self._run_storage = Runs(postgres_url)
        self._event_log_storage = EventLog(postgres_url)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"postgres_url": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "Storage":
        """Made by Dagster from the instance's configuration."""
        return cls(config_value["postgres_url"], inst_data)
