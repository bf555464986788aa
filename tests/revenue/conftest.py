"""The real definitions on a test's own database."""

import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import URL, Engine

import prepaid_pipeline
from prepaid_pipeline.cli.main import main
from prepaid_pipeline.database import connections
from prepaid_pipeline.definitions import build_defs
from prepaid_pipeline.importer.loading import import_directory
from prepaid_pipeline.settings.load import Settings
from tests.conftest import fresh_database
from tests.revenue.history import publish

# A command's exit code, and what it wrote to both streams.
Run = Callable[..., tuple[int, str, str]]


SAMPLE = Path(prepaid_pipeline.__file__).parent / "operations" / "sample"
AS_OF, GRACE = date(2026, 11, 1), 7


@pytest.fixture(scope="session")
def sample(cluster: URL) -> Iterator[Engine]:
    """The sample with all its months published: to be read, it takes seconds to make."""
    with fresh_database(cluster) as url:
        engine = connections.engine_for(url)
        import_directory(engine, SAMPLE, as_of=AS_OF, grace_days=GRACE)
        publish(engine, "2024-11", "2026-11", as_of=AS_OF)
        yield engine
        engine.dispose()


@pytest.fixture
def installation(
    settings: Settings, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """The environment of an installation on the test's database; months from 2025-01 on."""
    environment(monkeypatch, settings.home, database_url)
    return settings


def environment(patch: pytest.MonkeyPatch, home: Path, database: URL) -> None:
    """That of an installation with months from 2025-01 on."""
    patch.setenv("PREPAID_HOME", str(home))
    patch.setenv("PREPAID_DATABASE_URL", database.render_as_string(hide_password=False))
    patch.setenv("PREPAID_FIRST_MONTH", "2025-01")


@pytest.fixture
def definitions(installation: Settings) -> dg.Definitions:
    return build_defs()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def prepaid(
    installation: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepaid", *arguments])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
