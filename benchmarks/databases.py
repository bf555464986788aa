"""Databases of the benchmarks' own, on a server in a temporary directory: gone at the end."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL, Engine, make_url

from prepaid_pipeline.database import connections, embedded, migrations


@contextmanager
def embedded_server() -> Iterator[URL]:
    """A server; the URL names a database with the newest schema and nothing in it."""
    with tempfile.TemporaryDirectory(prefix="prepaid-bench-") as folder:
        home = Path(folder)
        # Run by root, the server has a user of its own, who must be able to get there.
        home.chmod(0o755)
        url = make_url(embedded.start(home))
        try:
            with connected(url) as engine:
                migrations.upgrade(engine)
            yield url
        finally:
            embedded.stop(home)


@contextmanager
def copied(source: URL, name: str) -> Iterator[URL]:
    """A copy of a database that nobody is connected to; dropped afterwards."""
    _execute(
        source,
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(source.database or "")
        ),
    )
    try:
        yield source.set(database=name)
    finally:
        _execute(source, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def connected(url: URL) -> Iterator[Engine]:
    """An engine that leaves no connection behind."""
    engine = connections.engine_for(url)
    try:
        yield engine
    finally:
        engine.dispose()


def settle(url: URL) -> None:
    """Write what is dirty, so that one side's pages are not written in the other side's time."""
    _execute(url, sql.SQL("CHECKPOINT"))


def _execute(url: URL, command: sql.Composed | sql.SQL) -> None:
    maintenance = url.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(command)
