"""A server of the oldest PostgreSQL that the product takes, if this machine has its programs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from prepaid_pipeline.database.migrations import OLDEST_SERVER
from tests.database import servers

# Where Debian's packages put them, whatever else is on the PATH.
PROGRAMS = Path(f"/usr/lib/postgresql/{OLDEST_SERVER}/bin")


def is_installed() -> bool:
    return (PROGRAMS / "initdb").exists()


@contextmanager
def running() -> Iterator[URL]:
    """The URL of an empty database on it; it listens on a socket only, and is gone in the end."""
    with servers.running(PROGRAMS) as url:
        yield url
