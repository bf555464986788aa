"""Databases as earlier releases made them."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import URL, Engine, text

from prepaid_pipeline.database import connections, migrations, queries

# Number -> the file of its migration, up to the newest.
FILES = {
    name.rpartition("/")[2].partition("_")[0]: name.rpartition("/")[2]
    for name in queries.names("migrations")
}
# Those that somebody may have: all but the newest.
RELEASES = sorted(FILES)[:-1]


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


@contextmanager
def at_release(cluster: URL, number: str) -> Iterator[Engine]:
    """A database that the migrations up to ``number`` have made."""
    with empty(cluster) as engine:
        with engine.begin() as first:
            queries.statement("database/migrations", "make_schema").execute(first, {})
            first.exec_driver_sql(
                "CREATE TABLE prepaid.alembic_version (version_num varchar(32) NOT NULL,"
                " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
            )
            first.exec_driver_sql("INSERT INTO prepaid.alembic_version VALUES ('0000')")
        for name in sorted(FILES):
            if name <= number:
                raise_to(engine, name)
        yield engine


def raise_to(engine: Engine, number: str) -> None:
    """Run one migration."""
    with engine.begin() as connection:
        migrations.run_file(connection, FILES[number])
        connection.execute(
            text("UPDATE prepaid.alembic_version SET version_num = :n"), {"n": number}
        )
