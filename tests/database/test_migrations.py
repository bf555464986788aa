"""The migrations: the same database as sql/schema, once, all or nothing, and clear when not."""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Engine, text

from prepaid_pipeline.database import connections, migrations, queries
from prepaid_pipeline.errors import DatabaseNotReady
from tests.database.releases import everything


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


def test_schema_files_and_migrations_give_the_same_database(
    empty: URL, database_url: URL, connect: Callable[[URL], Engine]
) -> None:
    with connect(empty).begin() as connection:
        for name in queries.names("schema"):
            queries.run_file(connection, name)
    from_schema, from_migrations = everything(empty), everything(database_url)
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
    ("number", "advice"),
    [
        ("0006", "Run 'prepaid migrate'"),
        ("0005", r"Bring it to 0006 with the last program before that release"),
        ("0007", "Install the newer"),
        ("0.0.9", "Install the newer"),
        ("9.10.0", "Install the newer"),
        ("somebody_elses", "Install the newer"),
    ],
)
def test_another_version_is_refused(engine: Engine, number: str, advice: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE prepaid.alembic_version SET version_num = :n"), {"n": number}
        )
    with pytest.raises(DatabaseNotReady, match=f"migration {number}.*{advice}"):
        migrations.require_current(engine)
    if number != "0006":
        with pytest.raises(DatabaseNotReady, match=f"migration {number}.*{advice}"):
            migrations.upgrade(engine)


def test_the_order_of_the_migrations_is_that_of_their_revisions() -> None:
    scripts = ScriptDirectory(str(migrations.REVISIONS))
    down = [revision.revision for revision in scripts.walk_revisions()]
    assert list(migrations.known()) == down[::-1]
    assert migrations.newest() == scripts.get_current_head()


def test_ids_are_ordered_as_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ["0.1.0", "0.2.0", "0.2.0.1", "0.2.0.10", "0.2.0.9", "0.10.0", "from_0006"]
    monkeypatch.setattr(queries, "names", lambda _: [f"migrations/{name}" for name in ids])
    in_order = ("0.1.0", "0.2.0", "0.2.0.1", "0.2.0.9", "0.2.0.10", "0.10.0")
    assert migrations.known.__wrapped__() == in_order


def test_a_frozen_migration_is_unchanged() -> None:
    folder = queries.sql_directory() / "migrations"
    frozen = dict(
        reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines()
    )
    assert {"0.1.0.sql", "from_0006.sql"} <= frozen.keys()
    now = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in frozen}
    assert now == frozen, "a change is a new migration: scripts/draft_migration.py drafts it"


def test_an_unreachable_server(empty: URL, connect: Callable[[URL], Engine]) -> None:
    engine = connect(empty.set(database="no_such_database"))
    for attempt in (migrations.require_current, migrations.upgrade):
        with pytest.raises(DatabaseNotReady, match=r"cannot be reached.*no_such_database"):
            attempt(engine)
