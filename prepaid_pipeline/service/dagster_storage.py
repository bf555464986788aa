"""Dagster's storage, as dagster-postgres makes it, faster where a backfill writes many events.

A range of months has an event per asset and month before it begins, as one batch, and ten more per
month. dagster-postgres 0.29 writes each event of such a batch, and every other event, on two or
three connections of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dagster import DagsterEventType, StringSource
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
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
        """What is planned in one statement, and one more per asset and check; others as ever."""
        planned = [e for e in events if e.dagster_event_type in (_ASSET, _CHECK)]
        if planned:
            self._store_planned(planned)
        if others := [e for e in events if e.dagster_event_type not in (_ASSET, _CHECK)]:
            super().store_event_batch(others)

    def _store_planned(self, events: Sequence[EventLogEntry]) -> None:
        insert = self.prepare_insert_event_batch(events)
        with self._connect() as connection:
            ids = connection.execute(insert.returning(SqlEventLogStorageTable.c.id)).scalars().all()
        # Of each asset its table knows the last event only. What is planned has no tags.
        assets = dict[Any, tuple[EventLogEntry, int]]()
        for event, event_id in zip(events, ids, strict=True):
            if event.dagster_event_type == _CHECK:
                self.store_asset_check_event(event, event_id)
            else:
                assets[event.get_dagster_event().asset_key] = event, event_id
        with self.index_transaction() as connection:
            for event, event_id in assets.values():
                self._store_asset_event(connection, event, event_id)

    def dispose(self) -> None:
        """Close what is kept."""
        super().dispose()
        self._engine.dispose()


class Storage(DagsterPostgresStorage):
    """Runs, events and ticks in PostgreSQL; ``dagster.yaml`` names it."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        self._event_log_storage = EventLog(postgres_url)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """One field of dagster-postgres's."""
        return {"postgres_url": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "Storage":
        """Made by Dagster from the instance's configuration."""
        return cls(config_value["postgres_url"], inst_data)
