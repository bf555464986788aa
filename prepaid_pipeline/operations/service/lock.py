"""At most one ``prepaid up`` and one daemon per database: two would start every run twice."""

import os
import socket

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import PrepaidError

UP, DAEMON = "prepaid up", "prepaid daemon"
_SQL = "operations/service/lock"
# PostgreSQL cuts the name of a session off there.
_LONGEST_NAME = 63


class AlreadyUp(PrepaidError):  # noqa: N818
    """Another 'prepaid up' or daemon works on this database."""


def holder(engine: Engine, lock: str = UP) -> str | None:
    """Who holds a lock on this database, in words; None if nobody does."""
    with engine.connect() as connection:
        row = queries.statement(_SQL, "holder").execute(connection, {"lock": lock}).one_or_none()
    return f"{row.name}, since {row.backend_start:%Y-%m-%d %H:%M:%S %Z}" if row else None


class SessionLock:
    """The right to be the only one of a kind on a database, held by a session.

    ``lock`` is UP or DAEMON; ``note`` is added to the name by which others see who has it.
    """

    def __init__(self, engine: Engine, lock: str, note: str = "") -> None:
        self._engine = engine
        self._lock = lock
        host = socket.gethostname()[:20]
        self._name = f"{lock} on {host}, process {os.getpid()}{note}"[:_LONGEST_NAME]
        self._connection: Connection | None = None

    def __enter__(self) -> "SessionLock":
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def keep(self) -> bool:
        """Take the lock again if the database was restarted; False while it cannot be reached.

        Raises AlreadyUp if another has it.
        """
        try:
            if self._connection is None:
                self._take()
            else:
                queries.statement(_SQL, "ping").execute(self._connection, {})
        except DBAPIError:
            self._drop()  # the database is gone: the next check tries again
        return self._connection is not None

    def say(self, name: str) -> None:
        """Let others see something else instead of the holder's name, while it holds."""
        if self._connection is not None:
            told = {"name": name[:_LONGEST_NAME] or self._name}
            queries.statement(_SQL, "sign").execute(self._connection, told)

    def _take(self) -> None:
        self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        queries.statement(_SQL, "sign").execute(self._connection, {"name": self._name})
        taken = queries.statement(_SQL, "take").execute(self._connection, {"lock": self._lock})
        if not taken.scalar():
            self._drop()
            what = "'prepaid up'" if self._lock == UP else "A daemon"
            raise AlreadyUp(
                f"{what} runs on this database already ({holder(self._engine, self._lock)})."
                " Stop it first."
            )

    def _drop(self) -> None:
        if self._connection is not None:
            # The session ends, not only our use of it: back in the pool it would keep the lock.
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
