"""The set-ups that the documents describe, each a server of its own and a day's work on it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, text

from prepaid_pipeline.database import connections, embedded, urls
from tests.cli.conftest import Prepaid, typed
from tests.database import servers
from tests.world import TODAY, World

__all__ = ["typed"]

PASSWORD = " p+a%s$w'o\\r\"d/@:?#&=€ "
# docs/operate.md, "An existing PostgreSQL".
OWNER: tuple[LiteralString, ...] = (
    "CREATE ROLE prepaid LOGIN CREATEROLE PASSWORD {}",
    "CREATE DATABASE prepaid OWNER prepaid",
    # For a drill on the same server only.
    "ALTER ROLE prepaid CREATEDB",
)


@dataclass(frozen=True)
class Setup:
    programs: Callable[[], Path] = embedded.programs
    tls: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def execute(url: URL, *statements: LiteralString, values: tuple[Any, ...] = ()) -> None:
    with psycopg.connect(urls.parameters(url), autocommit=True) as connection:
        for statement in statements:
            connection.execute(sql.SQL(statement).format(*values))


@contextmanager
def owned(setup: Setup) -> Iterator[URL]:
    """The database of an owner who is no superuser, by the documented statements."""
    with servers.running(
        setup.programs(), password=PASSWORD, tls=setup.tls, settings=setup.settings
    ) as url:
        execute(url, *OWNER, values=(PASSWORD,))
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


def test_an_owner_with_a_password(a_day: Callable[[URL], None]) -> None:
    """With characters that a URL and a shell take for something else."""
    with owned(Setup()) as url:
        a_day(url)
