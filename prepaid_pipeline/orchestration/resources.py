"""What ops, sensors and assets get from outside: the database and the installation's settings."""

from functools import cached_property

import dagster as dg
from pydantic import PrivateAttr
from sqlalchemy import Engine

from prepaid_pipeline.database import connections
from prepaid_pipeline.settings.load import Settings, load


class Database(dg.ConfigurableResource["Database"]):
    """The product's database. Settings are read when a run starts, never when code is loaded."""

    _engine: Engine | None = PrivateAttr(default=None)

    @cached_property
    def _settings(self) -> Settings:
        return load()

    def settings(self) -> Settings:
        return self._settings

    def engine(self) -> Engine:
        """The engine of this run or tick, opened on first use.

        Raises DatabaseNotReady when this machine's clock is not the database's.
        """
        if self._engine is None:
            self._engine = connections.engine(self._settings)
            connections.require_same_clock(self._engine)
        return self._engine

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Close the connections of this run."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
