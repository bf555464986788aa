"""The real code location on the test's database, as the daemon would load it."""

from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import URL

from prepaid_pipeline.definitions import build_defs


@pytest.fixture
def location(
    database_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dg.RepositoryDefinition:
    monkeypatch.setenv("PREPAID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(
        "PREPAID_DATABASE_URL", database_url.render_as_string(hide_password=False)
    )
    for name in ("PREPAID_SMTP_URL", "PREPAID_ALERT_TO", "PREPAID_TIMEZONE"):
        monkeypatch.delenv(name, raising=False)
    return build_defs().get_repository_def()
