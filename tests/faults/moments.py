"""The moments of a worker's talk with database and mail server, and a strike at one of them.

A moment is between two of its acts: statements, commits, rollbacks and mails. After one act and
before the next nothing happens that a crash could tear, so that each such gap is one moment; with
the one before the first act and the one after the last these are all there are.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from sqlalchemy import Engine, event

from prepaid_pipeline.mail.smtp import SmtpTransport
from tests.faults.servers import stop_server

Strike = Callable[[int], None]
_GONE_SECONDS = 5.0


class Moments:
    """Counts the moments of an engine and strikes at the one numbered ``point`` (None: at none).

    ``strike`` is given the process id of the last session that was used.
    """

    def __init__(self, engine: Engine, point: int | None, strike: Strike | None) -> None:
        self.count = 0
        self.struck = ""
        self._counting = threading.Lock()
        self._point, self._strike, self._session = point, strike, 0
        event.listen(engine, "before_cursor_execute", self._statement)
        dialect: Any = engine.dialect
        for name in ("do_commit", "do_rollback"):
            setattr(dialect, name, self._before(name, getattr(dialect, name)))
        SmtpTransport.send = self._before_mail(SmtpTransport.send)  # type: ignore[method-assign]

    def pass_by(self, moment: str) -> None:
        """One more moment; the last of all is after the work."""
        with self._counting:  # several connections hand over mails at once
            self.count += 1
            is_it = self.count == self._point
        if is_it and self._strike is not None:
            self.struck = moment
            self._strike(self._session)

    def _statement(self, _: Any, cursor: Any, statement: str, *__: Any) -> None:
        self._session = cursor.connection.info.backend_pid
        self.pass_by(" ".join(statement.split())[:60])

    def _before(self, name: str, function: Callable[..., Any]) -> Callable[[Any], None]:
        def wrapped(connection: Any) -> None:
            raw = getattr(connection, "dbapi_connection", connection)
            self._session = raw.info.backend_pid
            self.pass_by(name)
            function(connection)

        return wrapped

    def _before_mail(self, function: Callable[..., Any]) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.pass_by("mail")
            return function(*arguments, **named)

        return wrapped


def kill_worker(_: int) -> None:
    """SIGKILL of this very process: nothing runs after it, no handler, no finally."""
    os.kill(os.getpid(), signal.SIGKILL)


def terminate_session(admin_url: str) -> Strike:
    """The administrator ends the session; the worker lives and finds its connection dead."""

    def strike(session: int) -> None:
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [session])
            # The server's own waiting looks ten times a second: half of the time of all strikes.
            stop_by = time.monotonic() + _GONE_SECONDS
            while admin.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [session]).rowcount:
                assert time.monotonic() < stop_by, "the session does not end"
                time.sleep(0.002)

    return strike


def crash_server(session: int) -> None:
    """SIGKILL of the session's server process: the server ends all sessions and recovers."""
    assert session  # 0 would be all of us
    os.kill(session, signal.SIGKILL)


def stop_now(postmaster: int) -> Strike:
    """Immediate stop of the whole server, as when its machine loses power."""
    return lambda _: stop_server(postmaster)


def strike_of(job: Mapping[str, Any]) -> Strike | None:
    """What a job asks for: kill, terminate, crash or stop; none where it says nothing."""
    match job.get("strike"):
        case "kill":
            return kill_worker
        case "terminate":
            return terminate_session(job["admin_url"])
        case "crash":
            return crash_server
        case "stop":
            return stop_now(job["postmaster"])
    return None
