"""A PostgreSQL of a test's own, on disk and flushing, that can be stopped and killed."""

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import Engine, make_url

from prepaid_pipeline.database import connections, embedded, migrations

_PATIENCE_SECONDS = 60


class OwnServer:
    """Started and migrated; ``url`` stays the same over its deaths."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = embedded.start(home)
        engine = self.engine()
        migrations.upgrade(engine)
        engine.dispose()

    def engine(self) -> Engine:
        return connections.engine_for(make_url(self.url))

    def postmaster(self) -> int:
        return int((self.home / "postgres/postmaster.pid").read_text().splitlines()[0])

    def runs(self) -> bool:
        try:
            return runs(self.postmaster())
        except (FileNotFoundError, IndexError, ValueError):
            return False  # none, or one that is just starting

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT: immediately, as when the power fails; SIGINT: with its sessions ended first."""
        stop_server(self.postmaster(), how)

    def crash(self) -> None:
        """SIGKILL of one session's process: the server ends all others and recovers."""
        with psycopg.connect(self.url, autocommit=True) as admin:
            sessions = admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            ).fetchall()
            os.kill(random.choice(sessions)[0], signal.SIGKILL)

    def start(self) -> None:
        """Start it, whatever it died of, and wait until it has recovered."""
        embedded.start(self.home)
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < give_up_at, (self.home / "postgres/log").read_text()
                time.sleep(0.05)


def stop_server(postmaster: int, how: signal.Signals = signal.SIGQUIT) -> None:
    """Stop a server and wait until it is gone."""
    os.kill(postmaster, how)
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while runs(postmaster):
        assert time.monotonic() < give_up_at, "the server does not stop"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """A process that nobody has waited for yet does not run any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def own_server() -> Iterator[OwnServer]:
    """A server that is there for a while."""
    # Not in pytest's own directory: see tests/conftest.py. On disk: flushes are to mean something.
    home = Path(tempfile.mkdtemp(prefix="prepaid-fault-"))
    try:
        yield OwnServer(home)
    finally:
        embedded.stop(home)
        shutil.rmtree(home)
