"""Leases: who is the only one of a kind on a database, and which processes live.

A lease is a row of ``prepaid.locks`` that its holder renews. It ends with the holder's session, and
without one after LEASE_SECONDS.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import queries

LEASE_SECONDS = 60.0
_RENEW_SECONDS = 10.0
# A session that was lost, as by a restart of the database, is noticed within this.
_LOOK_SECONDS = 1.0
_SQL = "database/leases"


@dataclass(frozen=True)
class Holder:
    """Who has a lease, and since when."""

    name: str
    since: datetime


def holder(engine: Engine, name: str) -> Holder | None:
    """Who has the lease at this moment; None if nobody has."""
    with engine.connect() as connection:
        if not _is_there(connection):
            return None
        row = _statement("holder").execute(connection, {"name": name}).one_or_none()
    return Holder(row.holder, row.taken_at) if row else None


class Lease:
    """A lease and the session that holds it, for one thread at a time.

    ``holder`` is what others see of who has it.
    """

    def __init__(self, engine: Engine, name: str, holder: str) -> None:
        self.holder = holder
        self._engine = engine
        self._name = name
        self._connection: Connection | None = None
        self._renewed = 0.0

    def take(self) -> bool:
        """Take it; False if another one has it. Raises DBAPIError."""
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(
                isolation_level="AUTOCOMMIT"
            )
        taken = self._run("take").one_or_none() is not None
        if not taken:
            self.leave()
        return taken

    def keep(self) -> bool:
        """Renew it when that is due; False if another one has it by now. Raises DBAPIError."""
        if self._connection is None:
            return self.take()
        if time.monotonic() - self._renewed < _RENEW_SECONDS:
            _statement("is_there").execute(self._connection, {})
            return True
        return self.renew()

    def renew(self) -> bool:
        """Renew it at once, as ``keep`` does when it is due."""
        return self._run("renew").one_or_none() is not None

    def give_back(self) -> None:
        """Let others have it at once."""
        if self._connection is not None:
            with suppress(DBAPIError):  # then it ends with the session
                self._run("give_back")
            self.leave()

    def leave(self) -> None:
        """End the session, not only our use of it: back in the pool it would keep the lease."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    @property
    def has_session(self) -> bool:
        return self._connection is not None

    def _run(self, part: str) -> Any:
        assert self._connection is not None
        asked = {"name": self._name, "holder": self.holder, "seconds": LEASE_SECONDS}
        found = _statement(part).execute(self._connection, asked)
        self._renewed = time.monotonic()
        return found


@contextmanager
def held(engine: Engine, name: str, holder: str) -> Iterator[None]:
    """Hold a lease that nobody else asks for: it says that this process lives, until the end of
    the block or of the process. It is taken again after a restart of the database.
    """
    lease, ended = Lease(engine, name, holder), threading.Event()
    lease.take()

    def renew() -> None:
        while not ended.wait(_LOOK_SECONDS):
            try:
                lease.keep()
            except DBAPIError:
                lease.leave()

    renewing = threading.Thread(target=renew, name=name, daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        lease.give_back()


def forget_old(engine: Engine) -> None:
    """Delete the rows of holders that were lost a day ago."""
    with engine.begin() as connection:
        _statement("forget").execute(connection, {})


def is_there(engine: Engine) -> bool:
    """Whether the database is migrated as far as having leases."""
    with engine.connect() as connection:
        return _is_there(connection)


def _is_there(connection: Connection) -> bool:
    return bool(_statement("is_there").execute(connection, {}).scalar())


def _statement(part: str) -> queries.Statement:
    return queries.statement(_SQL, part)
