"""A real PostgreSQL for every test: one server and one migrated template per session."""

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
from filelock import FileLock
from sqlalchemy import URL, Engine, make_url

from prepaid_pipeline.database import connections, embedded, migrations
from prepaid_pipeline.revenue.report.formats import drawing
from prepaid_pipeline.settings.load import Settings, load
from tests import budget
from tests.databases import Databases, Reused
from tests.world import World

# What the shell is set up for is not what the tests are about, nor the programs that they start.
# Those of the faults are no settings of the product: 'make reliability' says where the figures go,
# and a seed repeats a run.
for _name in [name for name in os.environ if name.startswith("PREPAID_")]:
    if not _name.startswith("PREPAID_FAULT_"):
        del os.environ[_name]
# A run in the background ignores it, and so would the programs that it starts and ends by it.
signal.signal(signal.SIGINT, signal.default_int_handler)
budget.register()

TEMPLATE = "prepaid_template"
# Memory as files: copying the template takes 0.05 s there, up to a second on a disk that flushes.
_MEMORY = Path("/dev/shm")
_NEEDED = 4 << 30
# What a server does that must survive a crash of its machine costs a sixth of its time. Tests of
# that have a server of their own. No database here is old enough to be vacuumed.
_NEEDLESS = ("fsync", "full_page_writes", "synchronous_commit", "autovacuum")


def fastest_directory() -> Path:
    """Where a server of the tests keeps its files: in memory if there is room, else on disk."""
    in_memory = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _NEEDED
    return _MEMORY if in_memory else Path(tempfile.gettempdir())


def _execute(url: URL, command: str) -> None:
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(command)


@pytest.fixture(autouse=True)
def drawn_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are rendered in the test's own process: starting others takes seconds."""
    if "drawn_elsewhere" not in request.fixturenames:
        monkeypatch.setattr(drawing, "PROCESSES", 0)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """A command sets it for its process, which here goes on with other tests."""
    before = os.umask(0)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture
def drawn_elsewhere() -> None:
    """As an installation does it."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[URL]:
    """The session's server with the template database; its URL names the maintenance database.

    Parallel workers share it: the first makes it, the last one to finish stops it.
    """
    # Not in pytest's own directory: each new session closes that to other users, and as root the
    # server runs as another user.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    home = fastest_directory() / f"prepaid-test-{run}"
    home.mkdir(exist_ok=True)
    users = home / "users"
    with FileLock(home / "lock"):
        url = make_url(embedded.start(home)).set(database="postgres")
        users.touch()
        if not (home / "template_ready").exists():
            for setting in _NEEDLESS:
                _execute(url, f"ALTER SYSTEM SET {setting} = off")
            _execute(url, "SELECT pg_reload_conf()")
            _execute(url, f"CREATE DATABASE {TEMPLATE}")
            engine = connections.engine_for(url.set(database=TEMPLATE))
            migrations.upgrade(engine)
            engine.dispose()
            (home / "template_ready").touch()
        users.write_text(f"{users.read_text()}{os.getpid()}\n")
    yield url
    with FileLock(home / "lock"):
        left = [pid for pid in users.read_text().split() if pid != str(os.getpid())]
        users.write_text("".join(f"{pid}\n" for pid in left))
        if not left:
            embedded.stop(home)
            shutil.rmtree(home)


def _copy(cluster: URL, template: str) -> URL:
    name = f"test_{uuid.uuid4().hex[:16]}"
    _execute(cluster, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    return cluster.set(database=name)


def _drop(cluster: URL, url: URL) -> None:
    _execute(cluster, f"DROP DATABASE {url.database} WITH (FORCE)")


@contextmanager
def fresh_database(cluster: URL, template: str = TEMPLATE) -> Iterator[URL]:
    """A copy of the template that no test has used, dropped afterwards."""
    url = _copy(cluster, template)
    yield url
    _drop(cluster, url)


@contextmanager
def filled(cluster: URL, fill: Callable[[Engine], object]) -> Iterator[str]:
    """A template that has in it what all tests of a module begin with."""
    with fresh_database(cluster) as url:
        engine = connections.engine_for(url)
        fill(engine)
        engine.dispose()
        yield str(url.database)


@pytest.fixture(scope="session")
def template() -> str:
    """What the tests' databases are copies of; a module may have one of its own (``filled``)."""
    return TEMPLATE


@pytest.fixture(scope="session")
def databases(cluster: URL) -> Iterator[Databases]:
    """Copies of the templates, for one test after the other."""
    databases = Databases(TEMPLATE, partial(_copy, cluster), partial(_drop, cluster))
    yield databases
    databases.close()


@pytest.fixture
def database(databases: Databases, template: str) -> Iterator[Reused]:
    """A database that is as its template, for this test alone."""
    with databases.copy_of(template) as database:
        yield database


@pytest.fixture
def database_url(database: Reused) -> URL:
    """Its URL."""
    return database.url


@pytest.fixture
def engine(database: Reused) -> Engine:
    """An engine on it."""
    return database.engine


@pytest.fixture
def settings(database_url: URL, tmp_path: Path) -> Settings:
    """The defaults, with a home of the test's own and its database."""
    return load(
        {
            "PREPAID_HOME": str(tmp_path / "home"),
            "PREPAID_DATABASE_URL": database_url.render_as_string(hide_password=False),
        }
    )


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


@pytest.fixture(scope="module")
def module_world(cluster: URL) -> Iterator[World]:
    """A world that the examples of a property share; they roll back what they do."""
    with fresh_database(cluster) as url:
        engine = connections.engine_for(url)
        yield World(engine)
        engine.dispose()
