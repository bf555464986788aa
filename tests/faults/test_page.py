"""The figures arrive on the page, from several processes and with what was wrong."""

from pathlib import Path

import pytest

from tests.faults import page
from tests.faults.recorder import FIGURES, Recorder


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "figures.jsonl"
    monkeypatch.setenv(FIGURES, str(path))
    return path


def test_a_figure_is_a_row(figures: Path) -> None:
    ticks = iter([100.0, 103.25])
    Recorder("test_a", lambda: next(ticks))(
        fault=2, what="stopped 30 times", points=1234, violations=2, seed=7
    )
    read = page.read(figures.read_text())
    assert "stopped 30 times | 1,234 | 2 | 7 | 3.2 |" in page.table(read)
    assert "| 3. Mail servers that misbehave | not in this run |" in page.table(read)
    assert "1,234 points of 1 of the 11 kinds of fault: 2 violations." in page.summary(read)


def test_the_later_of_two_runs_counts(figures: Path) -> None:
    for points in (1, 2):
        Recorder("test_a")(fault=4, what="20 rounds", points=points, violations=0)
    (only,) = page.read(figures.read_text())
    assert only["points"] == 2


def test_nothing_is_written_without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FIGURES, raising=False)
    monkeypatch.chdir(tmp_path)
    Recorder("test_a")(fault=1, what="killed", points=1, violations=0)
    assert list(tmp_path.iterdir()) == []


def test_a_page_keeps_what_is_around_its_figures() -> None:
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    assert page.between(text, "new") == f"before\n{page.BEGIN}\nnew\n{page.END}\nafter\n"
    with pytest.raises(ValueError, match="lacks the markers"):
        page.between("no markers", "new")


@pytest.mark.parametrize("name", ["README.md", "docs/reliability.md"])
def test_the_pages_have_their_markers(name: str) -> None:
    page.between((page.ROOT / name).read_text(encoding="utf-8"), "figures")


def test_every_kind_of_fault_is_on_the_page() -> None:
    text = (page.ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    assert [name for name in page.FAULTS.values() if name not in text] == []
