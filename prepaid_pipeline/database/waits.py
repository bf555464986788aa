"""Who keeps the pipeline waiting, and the end of a session that does so for too long.

Any login can leave a transaction open that has locked a row or a table, and set its own timeouts to
0. So whoever works on the database watches: a thread beside the engine looks once a second while a
connection is in use for more than a moment. It notes whose open transaction our sessions wait for,
and ends that session after ``blocked_seconds``. Work that can go on without the row does not wait
so long: it gives up after PATIENCE_SECONDS and passes over what is locked (``context.py``).
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import queries, urls

log = logging.getLogger(__name__)

# What waits for a lock that long is told so by SQLSTATE LOCKED. Twice as long as until a look at
# the latest: who holds it is known by then.
PATIENCE_SECONDS = 3.0
LOCKED = "55P03"
_LOOK_SECONDS = 1.0
_STOP_SECONDS = 5.0
_SQL = "database/waits"


@dataclass(frozen=True)
class Blocker:
    """A session whose open transaction keeps the pipeline from ``waited_for``, a table's name, for
    ``seconds``. One that is the pipeline's own or a superuser's is not ended (``may_end``);
    ``refusal`` is why another one could not be.
    """

    pid: int
    person: str
    waited_for: str
    seconds: float
    may_end: bool
    refusal: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.person} (server process {self.pid}) has kept the pipeline from"
            f" {self.waited_for} for {self.seconds:.0f} s"
        )


def blockers(engine: Engine) -> list[Blocker]:
    """Whose open transactions keep the pipeline waiting now, or had rows that it passed over."""
    with engine.connect() as connection:
        return blockers_seen(connection)


def blockers_seen(connection: Connection) -> list[Blocker]:
    """The same on a connection."""
    found = {row["pid"]: row for row in _rows(connection, "look")}
    if _is_there(connection):
        found |= {row["pid"]: row for row in _rows(connection, "noted") if row["is_open"]}
    return [_blocker(row) for row in found.values()]


def others_write(engine: Engine) -> bool:
    """Whether another login has a transaction open that may have locked rows; costs 1 ms."""
    with engine.connect() as connection:
        return bool(_statement("others_write").execute(connection, {}).scalar())


def worth_telling(found: list[Blocker], blocked_seconds: float) -> list[Blocker]:
    """Without those who are waited for as workers wait for each other: for some seconds."""
    return [
        each
        for each in found
        if each.seconds >= (PATIENCE_SECONDS if each.may_end else blocked_seconds)
    ]


def watch(engine: Engine, blocked_seconds: float) -> None:
    """Watch over all that this process does with ``engine``, until it is disposed of."""
    _Watch(engine, blocked_seconds)


class _Watch:
    def __init__(self, engine: Engine, blocked_seconds: float) -> None:
        # No pool: the connection is there only while there is something to watch.
        self._engine = create_engine(
            engine.url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args={
                "application_name": "prepaid watch",
                "options": urls.options(engine.url),
            },
        )
        self._blocked_seconds = blocked_seconds
        # Of a database that is not migrated yet.
        self._first_seen: dict[tuple[int, str], float] = {}
        # Sessions that were ended and that the audit log could not take up yet.
        self._untold: list[Mapping[str, Any]] = []
        self._in_use: dict[int, float] = {}
        self._has_work = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)
        event.listen(engine, "engine_disposed", self._stop)

    def _checked_out(self, _: Any, record: Any, __: Any) -> None:
        self._in_use[id(record)] = time.monotonic()
        if self._thread is None:
            with self._starting:
                self._start()
        if not self._has_work.is_set():
            self._has_work.set()

    def _start(self) -> None:
        if self._thread is None:
            self._ended = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._ended,), name="waits", daemon=True
            )
            self._thread.start()

    def _checked_in(self, _: Any, record: Any) -> None:
        self._in_use.pop(id(record), None)

    def _stop(self, _: Engine) -> None:
        self._ended.set()
        self._has_work.set()
        if self._thread is not None:
            # What it does at this moment, such as to note whom it has ended, it finishes.
            self._thread.join(_STOP_SECONDS)
            self._thread = None

    def _run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self._has_work.wait()
            try:
                self._look_while_in_use(ended)
            except DBAPIError:
                # The database is away, or this look met a lock: the next one is due in a moment.
                ended.wait(_LOOK_SECONDS)

    def _look_while_in_use(self, ended: threading.Event) -> None:
        connection: Connection | None = None
        try:
            while not ended.wait(_LOOK_SECONDS):
                # First: a connection that is taken now is seen below, or by the next round.
                self._has_work.clear()
                since = min([*self._in_use.values()], default=None)
                if since is None:
                    return
                self._has_work.set()
                if time.monotonic() - since < _LOOK_SECONDS / 2:
                    continue
                if connection is None:
                    connection = self._engine.connect()
                    _statement("be_patient").execute(connection, {})
                self._look(connection)
        finally:
            if connection is not None:
                connection.close()

    def _look(self, connection: Connection) -> None:
        found = [row for row in _rows(connection, "look") if row["may_end"]]
        if _is_there(connection):
            for row in found:
                _statement("note").execute(connection, row)
            noted = _rows(connection, "noted")
            for row in noted:
                if not row["is_open"]:
                    _statement("forget").execute(connection, row)
            found = [row for row in noted if row["is_open"] and row["refusal"] is None]
        else:
            self._count_seconds(found)
        for row in found:
            if row["seconds"] >= self._blocked_seconds:
                self._end(connection, row)
        while self._untold:
            _statement("tell").execute(connection, self._untold[0])
            del self._untold[0]

    def _count_seconds(self, found: list[dict[str, Any]]) -> None:
        """As the table does: from when this very transaction was first seen to block."""
        now = time.monotonic()
        seen = {(row["pid"], row["virtual_transaction"]): row for row in found}
        self._first_seen = {key: self._first_seen.get(key, now) for key in seen}
        for key, row in seen.items():
            row["seconds"] = now - self._first_seen[key]

    def _end(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """End a session as its person, else with our own rights."""
        reasons = list[str]()
        for as_person in (True, False):
            try:
                self._end_as(row, as_person)
            except DBAPIError as error:
                reasons.append(str(error.orig).splitlines()[0])
            else:
                return
        log.warning("server process %s blocks and cannot be ended: %s", row["pid"], reasons[-1])
        if _is_there(connection):
            _statement("refuse").execute(connection, {**row, "refusal": reasons[-1]})

    def _end_as(self, row: Mapping[str, Any], as_person: bool) -> None:
        with self._engine.connect().execution_options(
            isolation_level="READ COMMITTED"
        ) as connection:
            _statement("be_patient").execute(connection, {})
            # Of several that watch only one deletes the row, and ends the session.
            if _is_there(connection) and not _rows(connection, "forget", row):
                return
            told = _tell(connection, row)
            if as_person:
                _statement("take_role").execute(connection, row)
            if not _statement("end").execute(connection, row).scalar():
                return  # its transaction is over
            connection.commit()
        log.warning("server process %s blocked %s too long: ended", row["pid"], row["waited_for"])
        if not told:
            self._untold.append(row)


def _tell(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Note in the audit log that a session is ended; False if that is locked, too."""
    try:
        with connection.begin_nested():
            _statement("tell").execute(connection, row)
    except DBAPIError:
        return False
    return True


def _blocker(row: Mapping[str, Any]) -> Blocker:
    named = ("pid", "person", "waited_for", "seconds", "may_end")
    return Blocker(**{name: row[name] for name in named}, refusal=row.get("refusal"))


def _rows(
    connection: Connection, part: str, asked: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in _statement(part).execute(connection, asked or {})]


def _is_there(connection: Connection) -> bool:
    return bool(_statement("is_there").execute(connection, {}).scalar())


def _statement(part: str) -> queries.Statement:
    return queries.statement(_SQL, part)
