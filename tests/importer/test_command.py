"""prepaid import."""

import json
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.cli import main
from prepaid_pipeline.settings.load import Settings
from tests.importer.folders import BASE, dump, rows, write


@pytest.fixture(autouse=True)
def _installation(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.database_url
    monkeypatch.setenv("PREPAID_HOME", str(settings.home))
    monkeypatch.setenv("PREPAID_DATABASE_URL", settings.database_url)


def _prepaid(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prepaid", *arguments])
    try:
        main.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_line_per_file(
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folder, {**BASE, "prices": "a,b\n"})
    assert _prepaid(monkeypatch, "import", str(folder), "--as-of", "2026-11-01") == 0
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines()] == [
        [f"{name}.csv", "imported", str(n), "rows", str(n), "added", "0", "changed"]
        for name, n in (
            ("customers", 3),
            ("plans", 5),
            ("addons", 3),
            ("tax_rates", 2),
            ("subscriptions", 5),
            ("service_plans", 5),
        )
    ]
    assert printed.err == "prices.csv: ignored, it is not the name of an import file\n"


def test_a_refused_file_makes_it_fail(
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folder, {**BASE, "customers": BASE["customers"].replace(",JP,", ",Japan,")})
    assert _prepaid(monkeypatch, "import", str(folder)) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "customers.csv:4:country: found 'Japan', expected an ISO 3166 country code such as US",
        "subscriptions.csv: skipped, because it needs customers.csv",
        "service_plans.csv: skipped, because it needs customers.csv",
        "prepaid: nothing was imported from customers.csv, subscriptions.csv, service_plans.csv; "
        "correct what is listed, then import the directory again",
    ]
    assert rows(engine, "SELECT FROM prepaid.customers") == []


def test_json_and_again(
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folder, BASE)
    assert _prepaid(monkeypatch, "import", str(folder), "--json", "--as-of", "2026-11-01") == 0
    first = json.loads(capsys.readouterr().out)
    assert first[0] == {
        "file": "customers.csv",
        "status": "imported",
        "rows": 3,
        "added": 3,
        "changed": 0,
        "differences": [],
        "errors": [],
    }
    before = dump(engine)
    assert _prepaid(monkeypatch, "import", str(folder), "--json", "--as-of", "2026-11-01") == 0
    again = json.loads(capsys.readouterr().out)
    assert {report["status"] for report in again} == {"unchanged"}
    assert dump(engine) == before


def test_a_directory_that_is_none_is_wrong_usage(
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _prepaid(monkeypatch, "import", str(folder / "nowhere")) == 2
    assert _prepaid(monkeypatch, "import", str(folder)) == 1
    assert "has none of the import files" in capsys.readouterr().err
