"""The files that reports are kept in: versions, the latest, the list of months, any store."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.errors import SettingError, UnknownThing
from prepaid_pipeline.revenue.report.formats import files
from prepaid_pipeline.storage import ENDINGS, Store
from tests.audit.writers import write as log_entries
from tests.revenue.history import Term, insert
from tests.revenue.pages import MARCH, Read, settings_of, write

D = date
CLOSED = D(2026, 4, 8)
ALL = {f"report.{ending}" for ending in ENDINGS.values()}
FIRST = {f"report-v1.{ending}" for ending in ENDINGS.values()}


@pytest.fixture
def history(engine: Engine) -> Engine:
    insert(engine, [Term(D(2026, 2, 5), "8.00"), Term(D(2026, 3, 5), "1234.56", kind="renewal")])
    return engine


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_preliminary_month_has_no_version_of_its_own(history: Engine, tmp_path: Path) -> None:
    write(history, tmp_path, D(2026, 3, 20))
    assert {p.name for p in (tmp_path / "2026-03").iterdir()} == ALL


def test_old_versions_stay_beside_the_latest(history: Engine, tmp_path: Path) -> None:
    write(history, tmp_path, CLOSED)
    folder = tmp_path / "2026-03"
    first = content(folder)
    assert first.keys() == ALL | FIRST
    assert all(first[name] == first[name.replace("report", "report-v1", 1)] for name in ALL)
    insert(history, [Term(D(2026, 3, 30), "5.00", customer=9)])
    write(history, tmp_path, D(2026, 5, 1))
    second = content(folder)
    assert {name: second[name] for name in FIRST} == {name: first[name] for name in FIRST}
    for name in ALL:
        assert second[name] == second[name.replace("report", "report-v2", 1)] != first[name]
    page = Read((folder / "report.html").read_text())
    assert "Closed · version 2" in page.words
    assert "Changed since version 1: USD: MRR 1,234.56 \u2192 1,239.56 (+5.00)" in page.words
    assert json.loads((folder / "report-v1.json").read_text())["version"] == 1


@pytest.mark.parametrize("as_of", [D(2026, 3, 20), CLOSED])
def test_a_report_is_an_anchor_of_the_audit_log(
    history: Engine, tmp_path: Path, as_of: date
) -> None:
    """Its page and its JSON name the newest seal; a later seal alone publishes nothing anew."""
    log_entries(history)
    seals.seal(history)
    newest = seals.newest(history)
    assert newest is not None
    write(history, tmp_path, as_of)
    for name in ("report.html", "report.json"):
        (found,) = anchors.from_file(tmp_path / "2026-03" / name)
        assert (found.seal_number, found.seal_hash) == (newest.seal_number, newest.seal_hash)
        assert seals.verify(history, [found]) == []
    before = content(tmp_path)
    log_entries(history)
    seals.seal(history)
    write(history, tmp_path, as_of)
    assert content(tmp_path) == before


def test_again_writes_nothing_and_a_lost_file_comes_back(
    history: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(history, tmp_path, CLOSED)
    before = content(tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    write(history, tmp_path, CLOSED)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == stamps
    for path in tmp_path.rglob("*.*"):
        path.unlink()
    write(history, tmp_path, CLOSED)
    assert content(tmp_path) == before, "the same bytes, PDF and XLSX too"
    assert not list(tmp_path.rglob(".*")), "a temporary file was left"


def test_a_run_that_died_between_two_files_is_finished(history: Engine, tmp_path: Path) -> None:
    write(history, tmp_path, CLOSED)
    before = content(tmp_path)
    insert(history, [Term(D(2026, 3, 30), "5.00", customer=9)])
    write(history, tmp_path, D(2026, 5, 1))
    whole = content(tmp_path)
    # The page of version 2 was written, the rest of the latest files were not.
    for name in ALL - {"report.html"}:
        (tmp_path / "2026-03" / name).write_bytes(before[f"2026-03/{name}"])
    write(history, tmp_path, D(2026, 5, 1))
    assert content(tmp_path) == whole


def test_another_language_writes_the_latest_anew_and_leaves_versions_alone(
    history: Engine, tmp_path: Path
) -> None:
    write(history, tmp_path, CLOSED)
    first = content(tmp_path / "2026-03")
    write(history, tmp_path, CLOSED, settings=settings_of(tmp_path, PREPAID_LOCALE="de_DE"))
    after = content(tmp_path / "2026-03")
    assert {name: after[name] for name in FIRST} == {name: first[name] for name in FIRST}
    assert "März 2026" in after["report.html"].decode()


def test_texts_that_change_leave_published_files_alone(history: Engine, tmp_path: Path) -> None:
    """A release, or a company, words the report anew: only what is written from then on says so."""
    reports, home = tmp_path / "reports", tmp_path / "reworded"
    write(history, reports, CLOSED)
    before = content(reports)
    (home / "texts").mkdir(parents=True)
    (home / "texts" / "en.toml").write_text('[section]\ncourse = "Ups and downs"\n')
    reworded = settings_of(reports).model_copy(update={"home": home})
    write(history, reports, CLOSED, settings=reworded)
    assert content(reports) == before
    (reports / "2026-03" / "report.html").unlink()
    write(history, reports, CLOSED, settings=reworded)
    assert "Ups and downs" in (reports / "2026-03" / "report.html").read_text()


def test_the_index_lists_all_months_newest_first(history: Engine, tmp_path: Path) -> None:
    write(history, tmp_path, D(2026, 5, 8), D(2026, 4, 1))
    write(history, tmp_path, D(2026, 5, 8))
    page = Read((tmp_path / "index.html").read_text())
    assert page.words.index("April 2026") < page.words.index("March 2026")
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == ["2026-04/report.html", "2026-03/report.html"]


def test_one_file_is_written_when_it_is_asked_for(history: Engine, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    write(history, tmp_path, CLOSED)
    before = content(tmp_path)
    for path in (tmp_path / "2026-03").iterdir():
        path.unlink()

    def one(kind: str, version: int | None = None) -> str:
        return files.one(history, settings, Store.of(settings), MARCH, kind, version)

    assert one("pdf", 1) == str(tmp_path / "2026-03" / "report-v1.pdf")
    assert one("csv") == str(tmp_path / "2026-03" / "report.csv.zip")
    found = content(tmp_path / "2026-03")
    assert found == {
        name: before[f"2026-03/{name}"] for name in ("report-v1.pdf", "report.csv.zip")
    }
    with pytest.raises(UnknownThing, match="there is no version 2 of the report of 2026-03"):
        one("pdf", 2)


@pytest.fixture
def memory() -> Any:
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    yield MemoryFileSystem()
    MemoryFileSystem.store.clear()


def test_reports_go_to_any_store_that_fsspec_knows(
    history: Engine, tmp_path: Path, memory: Any
) -> None:
    write(history, tmp_path, CLOSED)
    there = settings_of("memory://finance/reports/")
    address = write(history, tmp_path, CLOSED, settings=there)
    assert str(address) == "memory:/finance/reports/2026-03/report.html"
    found = {name.removeprefix("/finance/reports/"): memory.cat(name) for name in memory.store}
    assert found == content(tmp_path)
    made = {name: memory.info(name)["created"] for name in memory.store}
    write(history, tmp_path, CLOSED, settings=there)
    assert {name: memory.info(name)["created"] for name in memory.store} == made


def test_where_reports_can_be_kept(tmp_path: Path) -> None:
    assert Store.of(settings_of("memory://x")).address("2026-03/report.html") == (
        "memory:///x/2026-03/report.html"
    )
    with pytest.raises(SettingError, match=r"PREPAID_REPORTS: writing to s3:// .*\[s3\]"):
        Store.of(settings_of("s3://bucket/reports"))
    with pytest.raises(SettingError, match=r"PREPAID_REPORTS='nosuch://x': expected a folder"):
        Store.of(settings_of("nosuch://x"))
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written: Not a directory"):
        Store.local(tmp_path / "file").write("a/b", b"text")


def test_many_reports_are_drawn_in_processes_of_their_own(
    history: Engine, tmp_path: Path, drawn_elsewhere: None
) -> None:
    """The same bytes as in one process, and this one does not load what draws."""
    write(history, tmp_path, CLOSED)
    files_there = content(tmp_path)
    from prepaid_pipeline.revenue.report.formats import drawing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "PROCESSES", 0)
        for path in tmp_path.rglob("*.*"):
            path.unlink()
        write(history, tmp_path, CLOSED)
    assert content(tmp_path) == files_there
