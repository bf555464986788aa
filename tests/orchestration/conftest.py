"""The real code location on the test's database, as the daemon would load it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import URL

from prepaid_pipeline.definitions import build_defs


@pytest.fixture
def location(
    database_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dg.RepositoryDefinition:
    monkeypatch.setenv("PREPAID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREPAID_DATABASE_URL", database_url.render_as_string(hide_password=False))
    return build_defs().get_repository_def()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def evaluate(location: dg.RepositoryDefinition, instance: dg.DagsterInstance) -> Callable[..., Any]:
    """A sensor's tick as the daemon makes it: with the location's own resources, then closed."""

    def evaluate(name: str, cursor: str | None = None) -> Any:
        with dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            repository_def=location,
            resources=location.get_top_level_resources(),
        ) as context:
            return location.get_sensor_def(name).evaluate_tick(context)

    return evaluate
