"""The whole process on the oldest PostgreSQL that the product takes."""

import re
import sys
from pathlib import Path

import pytest

from prepaid_pipeline.database import queries
from tests.database import oldest_server
from tests.database.make_release import LAST_DAY, Release, business


@pytest.mark.long
@pytest.mark.skipif(not oldest_server.is_installed(), reason="no programs of the oldest server")
def test_two_weeks_of_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import, steps 0 to 13, decisions, changes and an erasure: no command fails."""
    release = Release(str(Path(sys.executable).parent / "prepaid"), tmp_path / "home")
    with oldest_server.running() as url:
        monkeypatch.setenv("PREPAID_DATABASE_URL", url.render_as_string(hide_password=False))
        business(release)
        release.run("check", "--as-of", LAST_DAY)
        release.run("audit", "verify")
    (figures,) = (tmp_path / "home" / "reports" / "2026-10").glob("report.html")
    assert "462" in figures.read_text(encoding="utf-8")


def test_every_batch_of_a_rule_has_a_name() -> None:
    """The validation gives it one only where the rule joins nothing, and before 16 a server wants
    one.
    """
    rules = [
        statement
        for name in queries.names("revenue/validation")
        for statement in re.split(r"^-- name:", queries.read(name), flags=re.MULTILINE)[1:]
    ]
    assert len(rules) > 30
    for rule in rules:
        named = re.findall(r"{batch} (?!WHERE|GROUP|ORDER)[a-z]+\b", rule)
        assert len(named) == (rule.count("{batch}") if re.search(r"\bJOIN\b", rule) else 0), rule
