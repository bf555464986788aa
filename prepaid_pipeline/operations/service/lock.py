"""At most one ``prepaid up`` and one daemon per database: two would start every run twice."""

import os
import socket

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import leases
from prepaid_pipeline.errors import PrepaidError

UP, DAEMON = "prepaid up", "prepaid daemon"


class AlreadyUp(PrepaidError):  # noqa: N818
    """Another 'prepaid up' or daemon works on this database."""


def holder(engine: Engine, lock: str = UP) -> str | None:
    """Who holds a lock on this database, in words; None if nobody does."""
    found = leases.holder(engine, lock)
    return f"{found.name}, since {found.since:%Y-%m-%d %H:%M:%S %Z}" if found else None


def this_process() -> str:
    """This machine and process, as others are told who does something."""
    return f"{socket.gethostname()[:20]}, process {os.getpid()}"


class SessionLock:
    """The right to be the only one of a kind on a database, by a lease of ``prepaid.locks``.

    ``lock`` is UP or DAEMON; ``note`` is added to the name by which others see who has it. On a
    database without that table nothing is taken, and ``keep`` takes it once it is migrated.
    """

    def __init__(self, engine: Engine, lock: str, note: str = "") -> None:
        self._engine = engine
        self._lock = lock
        self._name = f"{lock} on {this_process()}{note}"
        self._lease = leases.Lease(engine, lock, self._name)

    def __enter__(self) -> "SessionLock":
        if leases.is_there(self._engine):
            self._require(self._lease.take())
        return self

    def __exit__(self, *_: object) -> None:
        self._lease.give_back()

    def keep(self) -> bool:
        """Take the lock again if the database was restarted; False while it cannot be reached.

        Raises AlreadyUp if another has it.
        """
        try:
            self._require(self._lease.keep())
        except DBAPIError:
            self._lease.leave()  # the database is gone: the next check tries again
        return self._lease.has_session

    def say(self, name: str) -> None:
        """Let others see something else instead of the holder's name, while it holds."""
        if self._lease.has_session:
            self._lease.holder = name or self._name
            self._require(self._lease.renew())

    def _require(self, has_it: bool) -> None:
        if not has_it:
            self._lease.leave()
            what = "'prepaid up'" if self._lock == UP else "A daemon"
            raise AlreadyUp(
                f"{what} runs on this database already ({holder(self._engine, self._lock)})."
                " Stop it first."
            )
