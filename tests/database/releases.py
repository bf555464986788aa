"""Databases as earlier programs left them, and what a database is made of."""

import lzma
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import URL, Engine

from prepaid_pipeline.database import connections, embedded
from prepaid_pipeline.operations.backup.manifest import beside
from prepaid_pipeline.operations.backup.restoring import restore, whole
from tests.database.make_release import FILES

# The migrations at which somebody may have a database: that before the first release, and the last
# one of each release. tests/database/make_release.py makes their files.
RELEASES = ("0006", "0.1.0")


@contextmanager
def empty(cluster: URL) -> Iterator[Engine]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    maintenance = cluster.render_as_string(hide_password=False)
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        engine = connections.engine_for(cluster.set(database=name))
        try:
            yield engine
        finally:
            engine.dispose()
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def backup(release: str, folder: Path) -> Path:
    """The backup of a release, unpacked into ``folder``, its manifest beside it."""
    file = folder / f"{release}.dump"
    file.write_bytes(lzma.decompress((FILES / f"{file.name}.xz").read_bytes()))
    shutil.copy(FILES / beside(file).name, beside(file))
    return file


@contextmanager
def at_release(cluster: URL, release: str) -> Iterator[Engine]:
    """A database of a release, with the business of tests/database/make_release.py in it."""
    with empty(cluster) as engine, tempfile.TemporaryDirectory() as folder:
        file = backup(release, Path(folder))
        restore(engine, engine.url, file, whole(file))
        yield engine


def everything(url: URL, *options: str) -> list[str]:
    """Tables, constraints, indexes, functions, triggers, views, rights and rows, as SQL."""
    dumped = subprocess.run(
        [
            embedded.programs() / "pg_dump",
            "--exclude-table=prepaid.alembic_version",
            *options,
            url.set(drivername="postgresql").render_as_string(hide_password=False),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # pg_dump writes a random word into these, against injection.
    return [x for x in dumped.splitlines() if not re.match(r"\\(un)?restrict ", x)]


def plain(dump: list[str]) -> list[str]:
    """Without what PostgreSQL writes otherwise when it has read its own text once: the name of a
    column that had none, and brackets around OR.
    """
    return [re.sub(r"[()]|(?<=::text) AS text(?=,?$)", "", line) for line in dump]
