"""A server of the oldest PostgreSQL that the product takes, if this machine has its programs."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, make_url

from prepaid_pipeline.database.migrations import OLDEST_SERVER

# Where Debian's packages put them, whatever else is on the PATH.
PROGRAMS = Path(f"/usr/lib/postgresql/{OLDEST_SERVER}/bin")
# A server does not run as root; the package brings this user.
_OWNER = "postgres" if os.geteuid() == 0 else None


def is_installed() -> bool:
    return (PROGRAMS / "initdb").exists()


@contextmanager
def running() -> Iterator[URL]:
    """The URL of an empty database on it; it listens on a socket only, and is gone in the end."""
    with tempfile.TemporaryDirectory(prefix="prepaid-oldest-") as folder:
        home = Path(folder)
        home.chmod(0o777)
        data = home / "data"
        _run(
            "initdb",
            "--pgdata",
            data,
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )
        options = f"-c listen_addresses= -c unix_socket_directories={home} -c fsync=off"
        _run("pg_ctl", "--pgdata", data, "--wait", "--log", home / "log", "-o", options, "start")
        try:
            yield make_url(f"postgresql://postgres@/postgres?host={home}")
        finally:
            _run("pg_ctl", "--pgdata", data, "--wait", "--mode=fast", "stop")


def _run(program: str, *arguments: object) -> None:
    subprocess.run(
        [PROGRAMS / program, *map(str, arguments)],
        check=True,
        user=_OWNER,
        cwd="/",
        stdout=subprocess.DEVNULL,
    )
