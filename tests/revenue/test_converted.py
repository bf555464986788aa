"""The month in the reporting currency: worked examples, and what exchange rates never do."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.revenue import late_data
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.report.content import converted, versions
from prepaid_pipeline.revenue.rules import MOVEMENTS
from tests.budget import examples
from tests.revenue import history
from tests.revenue.conftest import Run
from tests.revenue.history import RUN, Term, insert, publish, rows
from tests.revenue.test_movements import TERMS
from tests.world import World

D = date
MARCH, APRIL = D(2026, 3, 1), D(2026, 4, 1)
_SET_RATE = text(
    "INSERT INTO revenue.exchange_rates (month, currency, reporting_currency, rate)"
    " VALUES (:month, :currency, :into, CAST(:rate AS numeric))"
    " ON CONFLICT (month, currency, reporting_currency) DO UPDATE SET rate = excluded.rate"
)


def set_rate(
    engine: Engine, month: date, rate: str, currency: str = "EUR", into: str = "USD"
) -> None:
    with engine.begin() as connection:
        connection.execute(
            _SET_RATE, {"month": month, "currency": currency, "into": into, "rate": rate}
        )


def shown(engine: Engine, month: date, into: str = "USD") -> Any:
    with engine.connect() as connection:
        return converted.collect(connection, month, month, into)[month]["converted"]


@pytest.fixture
def two_currencies(engine: Engine) -> Engine:
    """100 EUR and 50 USD stay; in April 20 EUR leave, and 30 EUR and 7 USD are new."""
    insert(
        engine,
        [
            Term(D(2026, 3, 5), "1200.00", 12, currency="EUR"),
            Term(D(2026, 3, 5), "600.00", 12, customer=2),
            Term(D(2026, 3, 5), "20.00", customer=3, currency="EUR"),
            Term(D(2026, 4, 9), "360.00", 12, customer=4, currency="EUR"),
            Term(D(2026, 4, 9), "7.00", customer=5),
            Term(D(2026, 4, 5), "0.50", customer=6, kind="renewal", currency="EUR"),
        ],
    )
    publish(engine, "2026-03", "2026-04")
    return engine


def test_a_month_line_by_line(two_currencies: Engine) -> None:
    set_rate(two_currencies, MARCH, "1.10")
    set_rate(two_currencies, APRIL, "1.20")
    # 120 EUR x 1.10 + 50; churn -20 x 1.20; new (30 + 0.50) x 1.20 + 7; 120 x 0.10 by the rates.
    assert shown(two_currencies, APRIL) == {
        "currency": "USD",
        "rates": [{"currency": "EUR", "rate": "1.20", "opening_rate": "1.10"}],
        "opening_mrr": "182.00",
        "movements": [
            {"movement": "new", "amount": "43.60"},
            {"movement": "reactivation", "amount": "0.00"},
            {"movement": "expansion", "amount": "0.00"},
            {"movement": "contraction", "amount": "0.00"},
            {"movement": "churn", "amount": "-24.00"},
        ],
        "exchange_rates": "12.00",
        "mrr": "213.60",
        "new_net": "439.00",
        "renewal_net": "0.60",
    }


def test_the_first_month_needs_no_rate_of_the_month_before(two_currencies: Engine) -> None:
    set_rate(two_currencies, MARCH, "1.10")
    found = shown(two_currencies, MARCH)
    assert found["rates"] == [{"currency": "EUR", "rate": "1.10", "opening_rate": None}]
    assert (found["opening_mrr"], found["exchange_rates"], found["mrr"]) == (
        "0.00",
        "0.00",
        "182.00",
    )


def test_a_missing_rate_is_said_and_nothing_is_made_up(two_currencies: Engine) -> None:
    set_rate(two_currencies, APRIL, "1.20")
    set_rate(two_currencies, MARCH, "0.90", into="JPY")
    with two_currencies.connect() as connection:
        found = converted.collect(connection, MARCH, APRIL, "USD")
        into_yen = converted.collect(connection, APRIL, APRIL, "JPY")
    assert found[APRIL] == {
        "converted": None,
        "converted_missing": ["EUR 2026-03"],
        "reporting_currency": "USD",
    }
    assert found[MARCH]["converted_missing"] == ["EUR 2026-03"]
    assert into_yen[APRIL]["converted_missing"] == ["EUR 2026-04", "USD 2026-03", "USD 2026-04"]


def test_a_single_currency_needs_no_rate(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5), "12.34")])
    publish(engine, "2026-03", "2026-03")
    found = shown(engine, MARCH)
    assert (found["mrr"], found["rates"]) == ("12.34", [])


def test_decimals_are_the_reporting_currencys(two_currencies: Engine) -> None:
    for currency, rate in (("EUR", "160.55"), ("USD", "150.25")):
        for month in (MARCH, APRIL):
            set_rate(two_currencies, month, rate, currency, "JPY")
    assert shown(two_currencies, APRIL, "JPY")["mrr"] == "29516"


def test_an_unknown_currency_is_a_wrong_setting(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(SettingError, match=r"'XYZ'.*ISO 4217"):
        converted.collect(connection, MARCH, MARCH, "XYZ")


def test_without_a_reporting_currency_there_is_nothing(two_currencies: Engine) -> None:
    with two_currencies.connect() as connection:
        assert converted.collect(connection, MARCH, APRIL, None) == {}


@pytest.fixture
def shared_engine(module_world: World) -> Engine:
    return module_world.engine


RATES = st.lists(
    st.decimals("0.0001", 400, places=4).filter(lambda rate: rate > 0), min_size=6, max_size=6
)


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(terms=TERMS, rates=RATES)
def test_rates_alone_move_nothing(
    shared_engine: Engine, terms: list[Term], rates: list[Decimal]
) -> None:
    """A movement is 0 when none of its kind is there in any currency, whatever the rates do; and
    start + movements + exchange rates = end, where each end is the next start.
    """
    # Beside terms that come and go in the first three months, some that outlast all six.
    ends = [
        replace(term, start=D(2024, 1, 1 + n), months=12, days=0, end=None, status="Active")
        for n, term in enumerate(terms)
    ]
    history.clear(shared_engine)
    insert(shared_engine, [*ends, *(t for t in terms if t.start < D(2024, 4, 1))])
    publish(shared_engine, "2024-01", "2024-06")
    for n, rate in enumerate(rates):
        set_rate(shared_engine, D(2024, 1 + n, 1), str(rate))
    moved: dict[date, set[str]] = {}
    for month, movement in rows(shared_engine, "SELECT month, movement FROM revenue.mrr_movements"):
        moved.setdefault(month, set()).add(movement)
    with shared_engine.connect() as connection:
        found = converted.collect(connection, D(2024, 1, 1), D(2024, 6, 1), "USD")
    before = None
    for month in sorted(found):
        part = found[month]["converted"]
        amounts = {m["movement"]: Decimal(m["amount"]) for m in part["movements"]}
        assert list(amounts) == list(MOVEMENTS)
        assert {m for m, amount in amounts.items() if amount} <= moved.get(month, set())
        changed = sum(amounts.values()) + Decimal(part["exchange_rates"])
        assert Decimal(part["opening_mrr"]) + changed == Decimal(part["mrr"])
        assert before in (None, part["opening_mrr"])
        before = part["mrr"]


def named(engine: Engine, as_of: date) -> list[str]:
    return [changed.sentence for changed in late_data.changed_months(engine, as_of)]


def close(engine: Engine, as_of: date, into: str | None) -> list[tuple[date, int, str]]:
    publish(engine, "2026-03", "2026-04", as_of)
    span = Span(MARCH, APRIL, as_of)
    versions.stage(engine, span, RUN)
    versions.publish(engine, span, RUN, 7, into)
    return rows(engine, "SELECT month, version, note FROM revenue.report_versions ORDER BY 1, 2")


def test_a_rate_that_comes_or_is_corrected_makes_a_new_version(two_currencies: Engine) -> None:
    engine, closed = two_currencies, D(2026, 5, 8)
    set_rate(engine, APRIL, "1.20")
    assert [row[1] for row in close(engine, closed, "USD")] == [1, 1]
    assert named(engine, closed) == []
    set_rate(engine, MARCH, "1.10")
    assert named(engine, closed) == [
        "2026-03 to 2026-04 changed since version 1: prepaid backfill 2026-03 2026-04"
    ]
    assert close(engine, closed, "USD")[1::2] == [
        (MARCH, 2, "Changed since version 1: now also in USD: MRR 182.00."),
        (APRIL, 2, "Changed since version 1: now also in USD: MRR 213.60."),
    ]
    assert len(close(engine, closed, "USD")) == 4, "without a change nothing is published"
    set_rate(engine, APRIL, "1.10")
    assert named(engine, closed) == [
        "2026-04 changed since version 2: prepaid backfill 2026-04 2026-04"
    ]
    assert close(engine, closed, "USD")[-1] == (
        APRIL,
        3,
        "Changed since version 2: in USD: MRR 213.60 -> 200.55 (-13.05),"
        " exchange rates 12.00 -> 0.00 (-12.00), net amount of new plans 439.00 -> 403.00 (-36.00),"
        " net amount of renewals 0.60 -> 0.55 (-0.05).",
    )
    assert named(engine, closed) == []


def test_what_was_said_stays_when_nothing_is_converted_any_more(two_currencies: Engine) -> None:
    engine, closed = two_currencies, D(2026, 5, 8)
    for month in (MARCH, APRIL):
        set_rate(engine, month, "1.10")
    assert len(close(engine, closed, "USD")) == 2
    assert len(close(engine, closed, None)) == 2
    with engine.connect() as connection:
        kept = versions.load(connection, APRIL, APRIL)[-1].document
    assert kept is not None
    assert kept["converted"]["mrr"] == "200.55"


def test_figures_and_rates_that_change_together_are_both_told(two_currencies: Engine) -> None:
    engine, closed = two_currencies, D(2026, 5, 8)
    for month in (MARCH, APRIL):
        set_rate(engine, month, "1.00")
    close(engine, closed, "USD")
    insert(engine, [Term(D(2026, 4, 20), "10.00", customer=9)])
    (*_, note) = close(engine, closed, "USD")[-1]
    assert note.startswith("Changed since version 1: USD: MRR 57.00 -> 67.00 (+10.00)")
    assert note.endswith(
        "; in USD: MRR 187.50 -> 197.50 (+10.00), net amount of new plans 367.00 -> 377.00 (+10.00)."
    )


def test_from_the_file_to_the_report(
    engine: Engine, prepaid: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    insert(engine, [Term(D(2026, 3, 5), currency="EUR"), Term(D(2026, 3, 5), customer=2)])
    monkeypatch.setenv("PREPAID_REPORTING_CURRENCY", "USD")
    code, _, err = prepaid("backfill", "2026-03", "2026-03", "--as-of", "2026-04-08")
    assert (code, err) == (
        0,
        "2026-03 is not converted into USD: there is no rate for EUR 2026-03 (import"
        " exchange_rates.csv)\n",
    )
    (tmp_path / "exchange_rates.csv").write_text("month,currency,rate\n2026-03,EUR,1.0823\n")
    assert prepaid("import", str(tmp_path))[0] == 0
    (*_, note) = close(engine, D(2026, 5, 8), "USD")[1]
    assert note == "Changed since version 1: now also in USD: MRR 20.82."
    with engine.connect() as connection:
        document = versions.load(connection, MARCH, MARCH)[-1].document
    assert document is not None
    assert document["converted"]["mrr"] == "20.82"


def test_a_setting_that_is_no_currency(prepaid: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREPAID_REPORTING_CURRENCY", "euro")
    assert prepaid("due") == (
        1,
        "",
        "prepaid: PREPAID_REPORTING_CURRENCY='euro': expected an ISO 4217 currency code such"
        " as USD\n",
    )
