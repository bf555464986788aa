"""At most one ``prepaid up`` per database: two daemons would start every run twice."""

import os
import socket

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline import queries
from prepaid_pipeline.errors import PrepaidError

_SQL = "service/up"


class AlreadyUp(PrepaidError):  # noqa: N818
    """Another 'prepaid up' works on this database."""


def holder(engine: Engine) -> str | None:
    """Who holds the lock of ``prepaid up`` on this database, in words; None if nobody does."""
    with engine.connect() as connection:
        row = queries.statement(_SQL, "holder").execute(connection, {}).one_or_none()
    return f"{row.name}, since {row.backend_start:%Y-%m-%d %H:%M:%S %Z}" if row else None


class UpLock:
    """The right to be the only ``prepaid up`` on a database, held by a session."""

    def __init__(self, engine: Engine, port: int) -> None:
        self._engine = engine
        self._name = (
            f"prepaid up on {socket.gethostname()[:30]}, process {os.getpid()}, port {port}"
        )
        self._connection: Connection | None = None

    def __enter__(self) -> "UpLock":
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def keep(self) -> None:
        """Take the lock again if the database was restarted. Raises AlreadyUp if another has it."""
        try:
            if self._connection is None:
                self._take()
            else:
                queries.statement(_SQL, "ping").execute(self._connection, {})
        except DBAPIError:
            self._drop()  # the database is gone: the next check tries again

    def _take(self) -> None:
        self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        queries.statement(_SQL, "sign").execute(self._connection, {"name": self._name[:63]})
        if not queries.statement(_SQL, "take").execute(self._connection, {}).scalar():
            self._drop()
            raise AlreadyUp(
                f"'prepaid up' runs on this database already ({holder(self._engine)})."
                " Stop it first (Ctrl-C there)."
            )

    def _drop(self) -> None:
        if self._connection is not None:
            # The session ends, not only our use of it: back in the pool it would keep the lock.
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
