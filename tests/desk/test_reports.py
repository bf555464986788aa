"""The monthly reports at the desk: what is published, as it was published, and nothing else."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from prepaid_pipeline.revenue.report.formats import files
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.storage import Store
from tests.desk.conftest import Browser
from tests.revenue.test_report_versions import report
from tests.world import World

Browsers = Callable[..., Browser]
OCTOBER = date(2026, 10, 1)


@pytest.fixture
def folder(world: World, settings: Settings) -> Path:
    """The folder of a month with one closed version."""
    report(world.engine, date(2026, 11, 8), OCTOBER)
    files.write(world.engine, settings, Store.of(settings), OCTOBER, OCTOBER)
    return settings.home / "reports" / "2026-10"


def test_each_team_opens_it(browser: Browsers, folder: Path) -> None:
    for team in ("leadership", "finance", "customer_success", "engineering"):
        person = browser(team)
        assert 'href="/reports/2026-10/report.html"' in person.get("/reports").text
        page = person.get("/reports/2026-10")
        assert page.url.path == "/reports/2026-10/report.html"
        assert page.text == (folder / "report.html").read_text()
        # It may not run anything, whatever is in it.
        assert "script-src" not in page.headers["content-security-policy"]
        assert "sandbox" in page.headers["content-security-policy"]
        assert "allow-scripts" not in page.headers["content-security-policy"]
    assert person.get("/reports/2026-10/report-v1.html").status_code == 200
    figures = person.get("/reports/2026-10/report.json")
    assert figures.headers["content-disposition"] == 'attachment; filename="2026-10-report.json"'
    assert json.loads(figures.text)["month"]
    assert person.get("/reports/index.html").url.path == "/reports"


def test_other_files_are_offered_when_they_are_there(browser: Browsers, folder: Path) -> None:
    leader = browser("leadership")
    (folder / "report.xlsx").unlink()
    assert "as Excel" not in leader.get("/reports").text
    page = leader.get("/reports").text
    assert 'aria-label="October 2026 as PDF"' in page
    assert 'aria-label="October 2026 as CSV"' in page
    assert leader.get("/reports/2026-10/report.pdf").headers["content-type"] == "application/pdf"


def test_what_is_not_published_is_not_found(browser: Browsers, folder: Path) -> None:
    (folder / "report-v2.html").write_text("a version that nobody published")
    (folder / "notes.html").write_text("somebody's notes")
    (folder.parent / "2026-09").mkdir()
    (folder.parent / "2026-09" / "report.html").write_text("a month that nobody published")
    (folder.parent / "secret.json").write_text("{}")
    leader = browser("leadership")
    for name in (
        "report-v2.html",
        "report-v0.html",
        "report-v01.html",
        "notes.html",
        "report.exe",
        "..%2fsecret.json",
        "%2e%2e/secret.json",
        "report.html%00",
        ".html",
    ):
        assert leader.get(f"/reports/2026-10/{name}").status_code == 404, name
    for path in (
        "/reports/2026-09/report.html",
        "/reports/2026-13/report.html",
        "/reports/x",
        "/reports/secret.json",
    ):
        assert leader.get(path).status_code == 404, path
    (folder / "report.html").unlink()
    answer = leader.get("/reports/2026-10/report.html")
    assert answer.status_code == 404
    assert "prepaid backfill 2026-10 2026-10" in answer.text
