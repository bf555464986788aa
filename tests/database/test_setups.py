"""The set-ups that the documents describe, each a server of its own and a day's work on it."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, text

from prepaid_pipeline.database import connections, embedded, migrations, urls
from prepaid_pipeline.errors import DatabaseNotReady
from tests.cli.conftest import Prepaid, typed
from tests.database import oldest_server, servers
from tests.world import TODAY, World

__all__ = ["typed"]

PASSWORD = " p+a%s$w'o\\r\"d/@:?#&=€ "
# docs/operate.md, "An existing PostgreSQL".
OWNER: tuple[LiteralString, ...] = (
    "CREATE ROLE prepaid LOGIN CREATEROLE PASSWORD {}",
    "CREATE DATABASE prepaid OWNER prepaid ENCODING 'UTF8' TEMPLATE template0",
    # For a drill on the same server only.
    "ALTER ROLE prepaid CREATEDB",
)


@dataclass(frozen=True)
class Setup:
    programs: Callable[[], Path] = embedded.programs
    tls: bool = False
    encoding: str = "UTF8"
    password: str = PASSWORD
    settings: Mapping[str, str] = field(default_factory=dict)


def execute(url: URL, *statements: LiteralString, values: tuple[Any, ...] = ()) -> None:
    with psycopg.connect(urls.parameters(urls.pinned(url)), autocommit=True) as connection:
        for statement in statements:
            connection.execute(sql.SQL(statement).format(*values))


@contextmanager
def owned(setup: Setup) -> Iterator[URL]:
    """The database of an owner who is no superuser, by the documented statements."""
    with servers.running(
        setup.programs(),
        password=setup.password,
        tls=setup.tls,
        encoding=setup.encoding,
        settings=setup.settings,
    ) as url:
        execute(url, *OWNER, values=(setup.password,))
        yield url.set(username="prepaid", database="prepaid")


@pytest.fixture
def a_day(
    typed: Prepaid,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Callable[[URL], None]:
    return lambda url: _a_day(typed, url, monkeypatch, tmp_path, request)


def _a_day(
    prepaid: Prepaid,
    url: URL,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    request: pytest.FixtureRequest,
) -> None:
    """From an empty database to a backup that is drilled and restored."""

    def run(*arguments: object) -> str:
        done = prepaid(*arguments)
        assert (done.code, done.err) == (0, ""), arguments
        return done.out

    monkeypatch.setenv("PREPAID_DATABASE_URL", urls.for_libpq(url))
    run("migrate")
    run("user", "add", "ann", "--team", "finance")
    engine = connections.engine_for(url)
    request.addfinalizer(engine.dispose)
    world = World(engine)
    world.tax_rate("0.0725")
    world.due_renewal()
    world.pay_and_approve(*world.open())
    world.settle()
    file = home / "prepaid.dump"
    run("backup", "create", file)
    assert "can be restored" in run("backup", "drill", file, "--here", "--as-of", TODAY)
    with engine.begin() as connection:
        for schema in ("prepaid", "revenue"):
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    run("backup", "restore", file, "--as-of", TODAY)
    assert world.rows("SELECT status FROM prepaid.invoices") == [("Paid",)]
    run("migrate")
    run("audit", "verify")


# What an administrator may have set for the whole server, and again for the user and the database.
DEFAULTS = {
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Pacific/Kiritimati",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "transform_null_equals": "on",
    "search_path": "pg_catalog",
    "row_security": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "50",
    "lock_timeout": "20",
    "idle_in_transaction_session_timeout": "10",
    "idle_session_timeout": "10",
    "client_encoding": "LATIN1",
}
OLDEST = pytest.mark.skipif(
    not oldest_server.is_installed(), reason="no programs of the oldest server"
)
TLS = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl for a certificate")


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(Setup(settings=DEFAULTS), id="embedded"),
        pytest.param(
            Setup(lambda: oldest_server.PROGRAMS, settings=DEFAULTS),
            id="oldest",
            marks=[OLDEST, pytest.mark.long],
        ),
        pytest.param(
            # The embedded server is built without TLS.
            Setup(
                lambda: oldest_server.PROGRAMS,
                tls=True,
                encoding="LATIN1",
                password=PASSWORD.replace("€", "~"),
            ),
            id="oldest, TLS, a server in LATIN1",
            marks=[OLDEST, TLS, pytest.mark.long],
        ),
    ],
)
def test_an_owner_with_a_password_and_other_defaults(
    setup: Setup, a_day: Callable[[URL], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password has characters that a URL and a shell take for something else."""
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    with owned(setup) as url:
        a_day(url)


def test_what_a_session_has(database_url: URL) -> None:
    """All that is pinned is in force, though the role and the database say something else."""
    quoted = sql.Identifier(str(database_url.database))
    for name, value in DEFAULTS.items():
        execute(
            database_url,
            "ALTER DATABASE {} SET {} = {}",
            values=(quoted, sql.Identifier(name), value),
        )
    engine = connections.engine_for(database_url)
    with engine.connect() as connection:
        for name, value in urls.SESSION.items():
            found = connection.execute(
                text("SELECT current_setting(:name)"), {"name": name}
            ).scalar()
            assert str(found).replace(", ", ",") == value, name
        assert DEFAULTS.keys() <= {name.lower() for name in urls.SESSION}
    engine.dispose()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_another_encoding_is_refused(cluster: URL, encoding: str) -> None:
    name = f"test_{encoding.lower()}"
    made: LiteralString = "CREATE DATABASE {} ENCODING {} LOCALE 'C' TEMPLATE template0"
    execute(cluster, made, values=(sql.Identifier(name), encoding))
    engine = connections.engine_for(cluster.set(database=name))
    try:
        with pytest.raises(DatabaseNotReady, match=f"encoding is {encoding}.*ENCODING 'UTF8'"):
            migrations.upgrade(engine)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT to_regnamespace('prepaid')")).scalar() is None
    finally:
        engine.dispose()
        execute(cluster, "DROP DATABASE {}", values=(sql.Identifier(name),))
