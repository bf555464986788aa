"""The report as a reader and as a program get it, and the files it is kept in."""

import json
import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.report import files, pages, versions
from prepaid_pipeline.report.store import Store
from prepaid_pipeline.revenue import Span
from prepaid_pipeline.settings import load
from tests.revenue.history import RUN, Term, insert, publish
from tests.revenue.test_reversals import BACK, PAID, credit_note, invoice, land, record

D = date
MARCH = D(2026, 3, 1)
VOID = {"meta", "br", "link", "img", "input", "hr"}


class _Page(HTMLParser):
    """Collects the text and refuses tags that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.open, self.tags = "", list[str](), list[tuple[str, dict[str, str | None]]]()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f" {data}"

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text)


def write(engine: Engine, root: Path, as_of: date, month: date = MARCH) -> Path:
    publish(engine, f"{month:%Y-%m}", f"{month:%Y-%m}", as_of)
    span = Span(month, month, as_of)
    versions.stage(engine, span, RUN)
    versions.publish(engine, span, RUN, 7)
    return files.write(engine, Store(root), month, month, 7)


@pytest.fixture
def history(engine: Engine) -> Engine:
    insert(engine, [
        Term(D(2026, 2, 5), "8.00"), Term(D(2026, 3, 5), "1234.56", kind="renewal"),
        Term(D(2026, 3, 9), customer=2), Term(D(2026, 2, 9), customer=3),
        Term(D(2026, 3, 1), "1000", customer=4, currency="JPY"),
    ])  # fmt: skip
    return engine


def test_html_says_how_the_month_went(history: Engine, tmp_path: Path) -> None:
    html = write(history, tmp_path, D(2026, 4, 8)).read_text()
    page = _Page(html)
    for wanted in (
        "March 2026", "Closed · version 1", "Figures of 31 March 2026, cut-off 8 April 2026.",
        "USD: How the month went", "JPY: How the month went",
        "New plans 1 10.00 USD net", "Renewals 1 1,234.56 USD net", "1,244.56 USD",
        "+1,226.56 USD", "Start 2 18.00", "Expansion 1 +1,226.56", "Churn 1 \u221210.00",
        "End 2 1,244.56", "1,000 JPY", "First closed version.", "Currencies are never added",
    ):  # fmt: skip
        assert wanted in page.words, wanted
    assert len(html) < 50_000


def test_html_says_what_was_taken_back(history: Engine, tmp_path: Path) -> None:
    page = _Page(write(history, tmp_path, D(2026, 4, 8)).read_text())
    assert page.words.count("No payment was taken back this month.") == 2
    assert page.words.count("No credit note was issued this month.") == 2
    invoice(history)
    back = [("Chargeback", "1234.50"), ("ChargebackReversed", "34.50")]
    land(history, [record("Success", PAID), *(record(kind, BACK, n) for kind, n in back)])
    credit_note(history, 1, "2026-03-09", "20.00", "3.80")
    page = _Page(write(history, tmp_path, D(2026, 4, 9)).read_text())
    for wanted in (
        "Refunds 0 0.00", "Chargebacks 1 1,234.50", "Chargebacks reversed 1 \u221234.50",
        "Taken back 2 1,200.00", "Issued Net Tax Total, USD 1 20.00 3.80 23.80",
        "Changes 0 0.00 USD net",
    ):  # fmt: skip
        assert wanted in page.words, wanted


def test_html_stands_alone_and_can_be_read_aloud(history: Engine, tmp_path: Path) -> None:
    page = _Page(write(history, tmp_path, D(2026, 4, 8)).read_text())
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe"}
    links = [attrs["href"] or "" for tag, attrs in page.tags if tag == "a"]
    assert not [link for link in links if "://" in link]
    for link in links:
        assert (tmp_path / "2026-03" / link).resolve().is_file(), link
    assert ("html", {"lang": "en"}) in page.tags
    assert [tag for tag, _ in page.tags if tag == "h1"] == ["h1"]
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    pictures = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert all(attrs["aria-label"] for attrs in pictures)
    assert len(pictures) == 2


def test_preliminary_says_so_and_until_when(history: Engine, tmp_path: Path) -> None:
    page = _Page(write(history, tmp_path, D(2026, 3, 20)).read_text())
    assert "Preliminary Figures of 20 March 2026" in page.words
    assert "They are final from 8 April 2026." in page.words
    assert sorted(p.name for p in (tmp_path / "2026-03").iterdir()) == [
        "report.html", "report.json"
    ]  # fmt: skip


def test_json_has_a_versioned_schema_and_exact_amounts(history: Engine, tmp_path: Path) -> None:
    write(history, tmp_path, D(2026, 4, 8))
    report = json.loads((tmp_path / "2026-03" / "report.json").read_text())
    assert report["schema"] == "prepaid-monthly-report/1"
    assert (report["month"], report["status"], report["version"]) == ("2026-03", "closed", 1)
    assert (report["measured_on"], report["cut_off"]) == ("2026-03-31", "2026-04-08")
    usd = next(f for f in report["currencies"] if f["currency"] == "USD")
    assert usd["mrr"] == "1244.56"
    assert usd["kinds"]["renewal"] == {"plans": 1, "net_amount": "1234.56"}
    assert [m["movement"] for m in usd["movements"]] == [
        "new", "reactivation", "expansion", "contraction", "churn"
    ]  # fmt: skip
    assert not re.search(r'": \d+\.\d', json.dumps(report)), "an amount became a float"


def test_an_empty_month_is_a_page_too(engine: Engine, tmp_path: Path) -> None:
    page = _Page(write(engine, tmp_path, D(2026, 4, 8)).read_text())
    assert "Nothing was active in March 2026" in page.words
    assert "nothing active" in _Page((tmp_path / "index.html").read_text()).words


def test_names_are_text_and_never_markup(engine: Engine, tmp_path: Path) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prepaid.plans SET name = '<script>alert(1)</script>'")
    html = write(engine, tmp_path, D(2026, 4, 8)).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_old_versions_stay_beside_the_latest(history: Engine, tmp_path: Path) -> None:
    write(history, tmp_path, D(2026, 4, 8))
    folder = tmp_path / "2026-03"
    first = (folder / "report-v1.html").read_bytes()
    assert (folder / "report.html").read_bytes() == first
    insert(history, [Term(D(2026, 3, 30), "5.00", customer=9)])
    write(history, tmp_path, D(2026, 5, 1))
    assert (folder / "report-v1.html").read_bytes() == first
    assert (folder / "report.html").read_bytes() == (folder / "report-v2.html").read_bytes()
    page = _Page((folder / "report.html").read_text())
    assert "Closed · version 2" in page.words
    assert "Changed since version 1: USD: MRR 1244.56 -> 1249.56 (+5.00)" in page.words
    assert json.loads((folder / "report-v1.json").read_text())["version"] == 1


def test_again_writes_nothing_and_a_lost_file_comes_back(history: Engine, tmp_path: Path) -> None:
    page = write(history, tmp_path, D(2026, 4, 8))
    content, stamp = page.read_bytes(), page.stat().st_mtime_ns
    write(history, tmp_path, D(2026, 4, 8))
    assert page.stat().st_mtime_ns == stamp
    for path in tmp_path.rglob("*.*"):
        path.unlink()
    write(history, tmp_path, D(2026, 4, 8))
    assert page.read_bytes() == content
    assert not list(tmp_path.rglob(".*")), "a temporary file was left"


def test_the_index_lists_all_months_newest_first(history: Engine, tmp_path: Path) -> None:
    write(history, tmp_path, D(2026, 5, 8), D(2026, 4, 1))
    write(history, tmp_path, D(2026, 5, 8))
    page = _Page((tmp_path / "index.html").read_text())
    assert page.words.index("April 2026") < page.words.index("March 2026")
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == ["2026-04/report.html", "2026-03/report.html"]


def test_where_reports_can_be_kept(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"PREPAID_REPORTS='s3://x/y': .* a local folder"):
        Store.of(load({"PREPAID_REPORTS": "s3://x/y"}))
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written: Not a directory"):
        Store(tmp_path / "file").write(tmp_path / "file" / "a" / "b", "text")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (pages.money("1234567.5"), "1,234,567.5"),
        (pages.signed("-80.00"), "\u221280.00"),
        (pages.signed("0.00"), "0.00"),
        (pages.per_cent("1", "3"), "33.3 %"),
        (pages.per_cent("1", "0.00"), "\u2013"),
        (pages.day("2026-11-08"), "8 November 2026"),
    ],
)
def test_formats(shown: str, expected: str) -> None:
    assert shown == expected
