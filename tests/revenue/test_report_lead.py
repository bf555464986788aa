"""The first sentence and the first tile of a report: by how much MRR rose or fell, and which way."""

import io
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pypdf
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prepaid_pipeline.language import catalogue
from prepaid_pipeline.revenue.report.formats.rendering import Rendering
from prepaid_pipeline.revenue.report.page import build
from tests.revenue.documents import full
from tests.revenue.pages import Read

MINUS = "\N{MINUS SIGN}"
NOWHERE = Path("/nowhere")
LOCALES = ("en_GB", "de_DE")
MORE = {"en_GB": " more than a month ago.", "de_DE": " mehr als vor einem Monat."}
LESS = {"en_GB": " less than a month ago.", "de_DE": " weniger als vor einem Monat."}
SAME = {"en_GB": ", the same as a month ago.", "de_DE": ", wie vor einem Monat."}
FIRST = {"en_GB": "; a month ago there was none.", "de_DE": "; vor einem Monat gab es keinen."}
UNCHANGED = {"en_GB": "unchanged since the month before", "de_DE": "unverändert seit dem Vormonat"}
FROM_NOTHING = {"en_GB": "(from nothing)", "de_DE": "(aus dem Nichts)"}

# What MRR was a month ago, what it is, and what both languages say of it.
MONTHS = {
    "rising": ("11589.00", "11902.00", "313.00 (+2.7%) more", "313,00 (+2,7 %) mehr"),
    "falling": ("8271.43", "8097.73", "173.70 (\u22122.1%) less", "173,70 (\u22122,1 %) weniger"),
    "fallen to nothing": (
        "90.00",
        "0.00",
        "90.00 (\u2212100.0%) less",
        "90,00 (\u2212100,0 %) weniger",
    ),
    "hardly fallen": ("90000.00", "89999.99", "0.01 (0.0%) less", "0,01 (0,0 %) weniger"),
    "equal": ("90.00", "90.00", "90.00 {}, the same", "90,00 {}, wie"),
    "first": ("0.00", "90.00", "90.00 {}; a month ago there", "90,00 {}; vor einem Monat gab"),
    "empty": ("0.00", "0.00", "0.00 {}, the same", "0,00 {}, wie"),
}
FIGURES = full()["currencies"][0]
CENTS = st.integers(0, 10**9).map(lambda cents: Decimal(cents).scaleb(-2))


def month(opening: Decimal | str, mrr: Decimal | str, currency: str = "USD") -> dict[str, Any]:
    change = Decimal(mrr) - Decimal(opening)
    known = {"opening_mrr": f"{opening}", "mrr": f"{mrr}", "change": f"{change:f}"}
    return {**FIGURES, **known, "currency": currency, "movements": []}


def percentage(rate: Decimal, locale: str) -> str:
    """A signed percentage with one decimal, by hand."""
    tenths = (abs(rate) * 100).quantize(Decimal("0.1"), ROUND_HALF_EVEN)
    sign = "" if not tenths else "+" if rate > 0 else MINUS
    unit = {"en_GB": "%", "de_DE": "\N{NO-BREAK SPACE}%"}[locale]
    return f"{sign}{plain(f'{tenths:,}', locale)}{unit}"


def plain(number: str, locale: str) -> str:
    return number if locale == "en_GB" else number.translate(str.maketrans(",.", ".,"))


@pytest.mark.parametrize("locale", LOCALES)
@settings(deadline=None)
@given(opening=CENTS | st.just(Decimal("0.00")), mrr=CENTS | st.just(Decimal("0.00")))
@example(opening=Decimal("90.00"), mrr=Decimal("90.00"))
@example(opening=Decimal("0.00"), mrr=Decimal("0.00"))
@example(opening=Decimal("10000.00"), mrr=Decimal("9995.00"))
def test_words_and_signs_say_the_same(locale: str, opening: Decimal, mrr: Decimal) -> None:
    told = build.headline(month(opening, mrr), catalogue.of(locale, NOWHERE))
    change, note = mrr - opening, told.large[0].note
    of = f"{plain(f'{mrr:,}', locale)} USD"
    assert of in told.sentence
    amount = plain(f"{abs(change):,}", locale)
    if not change:
        assert f"{of}{SAME[locale]}" in told.sentence
        assert note == UNCHANGED[locale]
    elif not opening:
        assert f"{of}{FIRST[locale]}" in told.sentence
        assert note.startswith(f"+{amount} {FROM_NOTHING[locale]}")
    else:
        rate = percentage(change / opening, locale)
        way = (MORE if change > 0 else LESS)[locale]
        assert f"{of}, {amount} ({rate}){way}" in told.sentence
        assert note.startswith(f"{'+' if change > 0 else MINUS}{amount} ({rate})")


@pytest.mark.parametrize(("locale", "place"), [("en_GB", 2), ("de_DE", 3)])
def test_every_format_says_it(locale: str, place: int) -> None:
    """A report with a currency per kind of month, as a page and on paper."""
    currencies = {
        f"XX{letter}": known for letter, known in zip("ABCDEFG", MONTHS.values(), strict=True)
    }
    document = full() | {
        "currencies": [month(o, m, currency) for currency, (o, m, *_) in currencies.items()],
        "course": [],
        "converted": None,
        "quality": None,
    }
    made = Rendering(document, catalogue.of(locale, NOWHERE))
    paper = pypdf.PdfReader(io.BytesIO(made.as_("pdf")))
    for text in (
        Read(made.as_("html").decode()).words,
        " ".join(" ".join(page.extract_text() for page in paper.pages).split()),
    ):
        readable = text.replace("\xa0", " ")
        for currency, known in currencies.items():
            assert known[place].format(currency) in readable, (locale, currency)
