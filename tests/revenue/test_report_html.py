"""The report as a reader gets it."""

import re
from collections import Counter
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.language import catalogue
from prepaid_pipeline.revenue.report.formats.rendering import Rendering
from tests.revenue.documents import full
from tests.revenue.history import Term, insert
from tests.revenue.pages import Read, write
from tests.revenue.test_reversals import BACK, PAID, credit_note, invoice, land, record

D = date


def rendered(document: dict[str, Any], locale: str = "en_GB") -> Read:
    made = Rendering(document, catalogue.of(locale, Path("/nowhere")))
    return Read(made.as_("html").decode())


@pytest.fixture
def history(engine: Engine) -> Engine:
    insert(
        engine,
        [
            Term(D(2026, 2, 5), "8.00"),
            Term(D(2026, 3, 5), "1234.56", kind="renewal"),
            Term(D(2026, 3, 9), customer=2),
            Term(D(2026, 2, 9), customer=3),
            Term(D(2026, 3, 1), "1000", customer=4, currency="JPY"),
        ],
    )
    return engine


def test_it_says_how_the_month_went(history: Engine, tmp_path: Path) -> None:
    html = write(history, tmp_path, D(2026, 4, 8)).read_text()
    page = Read(html)
    for wanted in (
        "March 2026",
        "Closed · version 1",
        "Figures of 31 March 2026, cut-off 8 April 2026.",
        "USD: how the month went",
        "JPY: how the month went",
        "MRR is 1,244.56 USD, 1,226.56 (+6,814.2%) more than a month ago. 1 new plan and 1"
        " renewal began.",
        "MRR is 1,000 JPY; a month ago there was none.",
        "New plans 1 10.00 USD net",
        "Renewals 1 1,234.56 USD net",
        "1,244.56 USD",
        "Start 2 18.00",
        "Expansion 1 +1,226.56",
        "Churn 1 \u221210.00",
        "End 2 1,244.56",
        "First closed version.",
        "Currencies are never added",
    ):
        assert wanted in page.words, wanted
    assert len(html) < 100_000


def test_it_says_what_was_taken_back(history: Engine, tmp_path: Path) -> None:
    page = Read(write(history, tmp_path, D(2026, 4, 8)).read_text())
    assert page.words.count("No payment was reversed this month.") == 2
    assert page.words.count("No credit note was issued this month.") == 2
    invoice(history)
    back = [("Chargeback", "1234.50"), ("ChargebackReversed", "34.50")]
    land(history, [record("Success", PAID), *(record(kind, BACK, n) for kind, n in back)])
    credit_note(history, 1, "2026-03-09", "20.00", "3.80")
    page = Read(write(history, tmp_path, D(2026, 4, 9)).read_text())
    for wanted in (
        "Refunds 0 0.00",
        "Chargebacks 1 1,234.50",
        "Chargeback reversals 1 \u221234.50",
        "Reversed 2 1,200.00",
        "Issued Net, USD Tax, USD Total, USD 1 20.00 3.80 23.80",
        "payment reversals 0.00 \u2192 1,200.00 (+1,200.00),",
        "credit notes 0.00 \u2192 23.80 (+23.80)",
        "Why: 1 credit note issued on",
        "2 payment reversals on",
    ):
        assert wanted in page.words, wanted


def test_it_stands_alone(history: Engine, tmp_path: Path) -> None:
    html = write(history, tmp_path, D(2026, 4, 8)).read_text()
    page = Read(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe"}
    assert "http" not in html
    links = [attrs["href"] or "" for tag, attrs in page.tags if tag == "a"]
    assert {"report-v1.pdf", "report-v1.xlsx", "report-v1.csv.zip", "../index.html"} <= set(links)
    ids = {attrs.get("id") for _, attrs in page.tags}
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids, link
        else:
            assert (tmp_path / "2026-03" / link).resolve().is_file(), link


def test_it_can_be_read_aloud() -> None:
    """Every chart has a text of its own and its figures beside it; nothing hangs on colour."""
    page = rendered(full())
    assert page.tags[0] == ("html", {"lang": "en-GB"})
    assert [tag for tag, _ in page.tags if tag == "h1"] == ["h1"]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    drawings = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawings) == 7, "two courses and a bridge per currency, and one of all"
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    assert drawings[1]["aria-label"] == (
        "Columns, October 2025 to October 2026: new plans stand on top of renewals. In October 2025"
        " 22 new and 161 renewals, in October 2026 34 new and 212 renewals."
    )
    twice = [i for i, n in Counter(attrs.get("id") for _, attrs in page.tags).items() if n > 1]
    assert twice == [None]
    assert "October 2025 22 161 902.00 6,279.00 9,120.00" in page.words
    named = [attrs.get("aria-labelledby") for tag, attrs in page.tags if tag == "section"]
    assert all(name in {attrs.get("id") for _, attrs in page.tags} for name in named)


def test_everything_that_a_version_knows_is_shown() -> None:
    page = rendered(full())
    for wanted in (
        "Closed · version 2",
        "Changed since version 1: USD: MRR 11,860.00 \u2192 11,902.00 (+42.00), active plans 300"
        " \u2192 301 (+1). Why: 3 terms imported on 20 November 2026.",
        "All currencies, in EUR",
        "Exchange rates \u221212.30",
        "USD 0.9262 0.9251 JPY 0.0061 0.0061",
        "Annual run rate 142,824.00 USD",
        "MRR per customer 42.06 USD",
        "Renewal rate 89.8%",
        "Net retention, 12 months 85.6%",
        "Fibre 1,000 yearly 71 26.2% 3,124.00",
        "United States 226 240 25 170 79.8% 9,502.00",
        "All countries 283 301 34 212 11,902.00",
        "Renewed in grace 14 5.9%",
        "Weekly pass 36 32 88.9%",
        "12 months 231 181 78.4% 9,120.00 7,004.10 7,811.40 76.8% 85.6%",
        "October 2026 0 21 21 100.0% 1,051.00",
        "9 older months are in the tables for spreadsheets.",
        "Opening balance 23,871.44 Billed +9,929.50 Recognised \u22129,512.18",
        "Invoices, net 9,619.50 Issued in the month Tax +769.56",
        "Cash 10,136.56",
        "Payment verification 246 240 5 4 7 5.2 h 4.9 days",
        "Payment rejected 5 4 1",
        "Rules that need attention: 1 of 3.",
        "Customers can be reached by email warning 9",
        "What changed since version 1",
        "Terms imported 3 20 November 2026",
        "Fingerprint of the inputs: 3f9a0c5d71be42e8a6d1c0b98f7e65d4",
        "Published 20 November 2026, 14:02:11 UTC.",
    ):
        assert wanted in page.words, wanted


@pytest.mark.parametrize(
    ("key", "gone"),
    [
        ("countries", "By country"),
        ("renewals", "Renewal rate"),
        ("retention", "Gross retention"),
        ("cohorts", "By month of first revenue"),
        ("deferred", "Deferred revenue"),
        ("reconciliation", "From billed to cash"),
        ("arr", "Annual run rate 142"),
    ],
)
def test_what_a_version_does_not_know_is_left_out(key: str, gone: str) -> None:
    document = full()
    assert gone in rendered(document).words
    document["currencies"] = [{**f, key: None} for f in document["currencies"]]
    assert gone not in rendered(document).words
    for figures in document["currencies"]:
        del figures[key]
    assert gone not in rendered(document).words


@pytest.mark.parametrize(
    ("key", "gone"),
    [
        ("course", "New plans against renewals"),
        ("process", "How the process ran"),
        ("quality", "Data quality"),
        ("changes", "What changed since"),
        ("converted", "All currencies, in"),
        ("fingerprint", "Fingerprint of the inputs"),
    ],
)
def test_parts_of_the_month_that_are_not_there_are_left_out(key: str, gone: str) -> None:
    document = full()
    assert gone in rendered(document).words
    assert gone not in rendered({**document, key: None}).words


def test_rates_that_are_missing_are_said() -> None:
    page = rendered({**full(), "converted": None, "converted_missing": ["JPY 2026-10"]})
    assert (
        "There is no total of all currencies: these rates are missing: JPY 2026-10." in page.words
    )


def test_preliminary_says_so_and_until_when(history: Engine, tmp_path: Path) -> None:
    page = Read(write(history, tmp_path, D(2026, 3, 20)).read_text())
    assert "Preliminary Figures of 20 March 2026" in page.words
    assert "They are final from 8 April 2026." in page.words


def test_an_empty_month_is_a_page_too(engine: Engine, tmp_path: Path) -> None:
    page = Read(write(engine, tmp_path, D(2026, 4, 8)).read_text())
    assert "Nothing was active in March 2026" in page.words
    assert "nothing active" in Read((tmp_path / "index.html").read_text()).words


def test_names_are_text_and_never_markup(engine: Engine, tmp_path: Path) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prepaid.plans SET name = '<script>alert(1)</script>'")
    html = write(engine, tmp_path, D(2026, 4, 8)).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_a_large_report_stays_small() -> None:
    """Three currencies, 60 plans, 40 countries, six years of cohorts, 60 checks."""
    document = full()
    usd = document["currencies"][0]
    usd["plans"] = [{**usd["plans"][0], "plan_code": str(n), "mrr": "198.37"} for n in range(60)]
    usd["activations"] = [{**usd["activations"][0], "plan_code": str(n)} for n in range(60)]
    usd["countries"] *= 20
    usd["cohorts"] *= 4
    document["quality"] *= 20
    document["currencies"] = [{**usd, "currency": code} for code in ("USD", "EUR", "GBP")]
    document["course"] = [{**document["course"][0], "currency": c} for c in ("USD", "EUR", "GBP")]
    made = Rendering(document, catalogue.of("en_GB", Path("/nowhere")))
    assert len(made.as_("html")) < 500_000
