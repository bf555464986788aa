"""Dagster's storage, as dagster-postgres makes it, faster where a backfill writes many events.

A range of months has an event per asset and month before it begins, as one batch, and ten more per
month. dagster-postgres 0.29 writes each event of such a batch, and every other event, on two or
three connections of its own.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dagster import DagsterEventType, StringSource
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._serdes import ConfigurableClassData, serialize_value
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine

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


class Storage(DagsterPostgresStorage):
    """Runs, events and ticks in PostgreSQL; ``dagster.yaml`` names it."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
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
