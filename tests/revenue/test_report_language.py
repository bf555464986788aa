"""Texts from one catalogue per language, numbers and dates as CLDR has them."""

import re
import tomllib
from datetime import date
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.language import catalogue
from prepaid_pipeline.revenue.report.content.changes import LABELS
from prepaid_pipeline.revenue.report.formats.rendering import Rendering
from prepaid_pipeline.revenue.rules import (
    INPUTS,
    MONTHLY_FIGURES,
    MONTHLY_REPORT,
    MOVEMENTS,
    REVERSALS,
)
from prepaid_pipeline.settings.load import load
from prepaid_pipeline.storage import ENDINGS
from tests.revenue.documents import full
from tests.revenue.pages import Read
from tests.test_docs import hold_reasons

TEXTS = Path(catalogue.__file__).parent / "texts"
NOWHERE = Path("/nowhere")


def texts(name: str) -> dict[str, str]:
    def flat(texts: dict[str, Any], prefix: str = "") -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in texts.items():
            inner = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {}
            found |= inner or {f"{prefix}{key}": value}
        return found

    return flat(tomllib.loads((TEXTS / f"{name}.toml").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("locale", "money", "signed", "rate", "day", "month"),
    [
        ("en_GB", "1,234,567.50", "\u22121,234.50", "12.3%", "8 November 2026", "October 2026"),
        ("en_US", "1,234,567.50", "\u22121,234.50", "12.3%", "November 8, 2026", "October 2026"),
        (
            "de_DE",
            "1.234.567,50",
            "\u22121.234,50",
            "12,3\xa0%",
            "8. November 2026",
            "Oktober 2026",
        ),
        (
            "de_CH",
            "1\u2019234\u2019567.50",
            "\u22121\u2019234.50",
            "12.3%",
            "8. November 2026",
            "Oktober 2026",
        ),
        ("en_IN", "12,34,567.50", "\u22121,234.50", "12.3%", "8 November 2026", "October 2026"),
    ],
)
def test_formats(locale: str, money: str, signed: str, rate: str, day: str, month: str) -> None:
    say = catalogue.of(locale, NOWHERE)
    assert say.money("1234567.50") == money
    assert say.signed("-1234.50") == signed
    assert (say.signed("0.00"), say.signed("5")) == (say.money("0.00"), "+5")
    assert say.rate("0.1234") == rate
    assert say.rate(None) == "\u2013"
    assert say.day("2026-11-08") == say.day(date(2026, 11, 8)) == day
    assert say.month("2026-10") == month


@pytest.mark.parametrize(("amount", "shown"), [("0", "0"), ("75400", "75,400"), ("1.234", "1.234")])
def test_decimals_are_the_currencys(amount: str, shown: str) -> None:
    assert catalogue.of("en_GB", NOWHERE).money(amount) == shown


def test_german_is_complete() -> None:
    """Every text, with the same places to fill in. Rules alone may be in English."""
    english, german = texts("en"), texts("de")
    assert {key for key in german if not key.startswith("rule.")} == english.keys()
    for key, text in english.items():
        places = [
            {name for _, name, _, _ in Formatter().parse(t) if name} for t in (text, german[key])
        ]
        # one plan: the number may be a word.
        if key.rpartition(".")[2] != "one":
            assert places[0] == places[1], key
    rules = {rule.name for s in (*MONTHLY_FIGURES, *MONTHLY_REPORT, *INPUTS) for rule in s.rules}
    assert {key.partition(".")[2] for key in german if key.startswith("rule.")} <= rules


def test_every_word_of_the_data_has_a_text() -> None:
    english = texts("en")
    assets = {suite.asset for suite in (*MONTHLY_FIGURES, *MONTHLY_REPORT, *INPUTS)}
    words = {
        "reason": set(hold_reasons()),
        "asset": assets,
        "movement": set(MOVEMENTS),
        "reversal": set(REVERSALS),
        "figure": set(LABELS),
    }
    missing = [
        f"{group}.{word}"
        for group, found in words.items()
        for word in sorted(found)
        if f"{group}.{word}" not in english
    ]
    assert missing == []
    said = {key.partition(".")[2] for key in english if key.startswith("reason.")}
    assert said == words["reason"]


def test_no_text_is_left_over() -> None:
    """Every text is asked for by its name, or by a group that the data completes."""
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("language", "mail", "revenue")
        for path in (TEXTS.parents[1] / folder).rglob("*")
        if path.suffix in (".py", ".j2", ".txt", ".html", ".subject")
    )
    groups = set(re.findall(r"""["'](\w+)\.\{""", sources)) | set(
        re.findall(r'Word\("(\w+)"', sources)
    )
    asked = set(re.findall(r"""["'](\w+\.\w+)["']""", sources))
    left = [
        key
        for key in texts("en")
        if key.partition(".")[0] not in groups and ".".join(key.split(".")[:2]) not in asked
    ]
    assert left == []


def test_a_german_report() -> None:
    words = Read(Rendering(full(), catalogue.of("de_DE", NOWHERE)).as_("html").decode()).words
    for wanted in (
        "Oktober 2026",
        "Abgeschlossen · Fassung 2",
        "Zahlen vom 31. Oktober 2026",
        "Der MRR beträgt 11.902,00 USD, 313,00 (+2,7 %) mehr als vor einem Monat.",
        "Begonnen haben 34 neue Pläne, dazu 212 Verlängerungen.",
        "Vereinigte Staaten",
        "Warum: 3 Laufzeiten importiert am 20. November 2026.",
        "Kunden sind per E-Mail zu erreichen",
        "9 ältere Monate stehen in den Tabellen.",
        "4,9 Tage",
    ):
        assert wanted in words, wanted
    for data in (
        "Fibre 1,000 monthly",
        "monthly recurring revenue",
        "Invoiced in an earlier month",
    ):
        words = words.replace(data, "")
    assert re.findall(r".{9}\b(?:the|and|of|plans|month|monthly)\b", words) == []


def test_a_language_is_added_without_touching_code(tmp_path: Path) -> None:
    """A file in the installation's home; what it lacks is said in English, plurals are its own."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "pl.toml").write_text(
        '[page]\nkicker = "Miesięczny raport"\n[count.new]\none = "{n} nowy plan"\n'
        'few = "{n} nowe plany"\nmany = "{n} nowych planów"\nother = "{n} nowego planu"\n',
        encoding="utf-8",
    )
    say = catalogue.of("pl_PL", tmp_path)
    assert [say.counted("count.new", n) for n in (1, 3, 34)] == [
        "1 nowy plan",
        "3 nowe plany",
        "34 nowe plany",
    ]
    made = Rendering(full(), say)
    words = Read(made.as_("html").decode()).words
    for wanted in ("Miesięczny raport", "październik 2026", "34 nowe plany", "Closed · version 2"):
        assert wanted in words
    assert all(made.as_(kind) for kind in ENDINGS)


def test_other_words_for_a_language_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "en.toml").write_text('[page]\nkicker = "Figures of the month"\n')
    say = catalogue.of("en_US", tmp_path)
    assert (say("page.kicker"), say("page.all_months")) == ("Figures of the month", "All months")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("english", "expected a locale such as en_GB, en_US or de_DE"),
        ("xx_XX", "expected a locale such as en_GB, en_US or de_DE"),
        ("fr_FR", r"no texts in this language. Copy .*en.toml to .*texts/fr.toml and translate it"),
    ],
)
def test_locales_that_cannot_be(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=f"PREPAID_LOCALE='{name}': .*{said}"):
        catalogue.load(load({"PREPAID_LOCALE": name, "PREPAID_HOME": str(tmp_path)}))


def test_a_catalogue_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "fr.toml").write_text("kicker = Rapport")
    with pytest.raises(SettingError, match=r"texts/fr.toml cannot be read: .*line 1"):
        catalogue.of("fr_FR", tmp_path)
