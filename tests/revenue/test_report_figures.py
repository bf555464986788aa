"""Figures as shown: rounded to the currency, and what a reader adds up adds up."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from prepaid_pipeline.revenue.report.content.figures import collect
from prepaid_pipeline.revenue.report.content.rounding import parts, rounded
from tests.revenue.history import Term, insert, publish

D = date
AMOUNTS = st.lists(st.decimals(-5000, 5000, places=6), max_size=9)


def figures(engine: Engine, month: date) -> dict[str, dict[str, Any]]:
    with engine.connect() as connection:
        return {f["currency"]: f for f in collect(connection, month, month)[month]}


@pytest.mark.parametrize(
    ("amount", "exponent", "expected"),
    [
        ("0.125", 2, "0.13"),
        ("-0.125", 2, "-0.13"),
        ("2.5", 0, "3"),
        ("1.0005", 3, "1.001"),
        ("666.6666666666666668", 2, "666.67"),
    ],
)
def test_half_up(amount: str, exponent: int, expected: str) -> None:
    assert rounded(Decimal(amount), exponent) == Decimal(expected)


@given(opening=st.decimals(0, 5000, places=6), amounts=AMOUNTS, exponent=st.sampled_from([0, 2, 3]))
def test_parts_add_up_and_are_within_a_unit(
    opening: Decimal, amounts: list[Decimal], exponent: int
) -> None:
    total = rounded(opening + sum(amounts), exponent) - rounded(opening, exponent)
    shown = parts(amounts, exponent, total)
    assert sum(shown) == total
    unit = Decimal(1).scaleb(-exponent)
    assert all(abs(a - b) < unit for a, b in zip(amounts, shown, strict=True))


def test_thirds_add_up_and_the_first_takes_the_rest() -> None:
    third = Decimal(100) / 3
    assert parts([third] * 3, 2, Decimal("100.00")) == [
        Decimal("33.34"),
        Decimal("33.33"),
        Decimal("33.33"),
    ]
    with pytest.raises(ValueError, match="is not the sum"):
        parts([third] * 3, 2, Decimal("101.00"))


def test_four_yearly_plans_of_2000(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 1), "2000.00", 12, customer=n) for n in range(4)])
    publish(engine, "2026-03", "2026-03")
    f = figures(engine, D(2026, 3, 1))["USD"]
    assert (f["opening_mrr"], f["mrr"], f["change"]) == ("0.00", "666.67", "666.67")
    assert f["kinds"]["new"] == {"plans": 4, "net_amount": "8000.00"}
    assert f["movements"][0] == {"movement": "new", "customers": 4, "amount": "666.67"}
    assert [m["amount"] for m in f["movements"][1:]] == ["0.00"] * 4


def test_the_bridge_adds_up_as_shown(engine: Engine) -> None:
    """Unrounded thirds everywhere: rounded one by one they would miss the end by a cent."""
    before = [Term(D(2026, 3, 1), "100.00", 3, customer=n) for n in range(4)]
    after = [
        Term(D(2026, 4, 1), "50.00", 3, customer=9),
        Term(D(2026, 4, 1), "50.00", 3, customer=0),
        Term(D(2026, 1, 2), "20.00", 3, customer=5),
    ]
    insert(engine, before + after)
    publish(engine, "2026-03", "2026-04")
    f = figures(engine, D(2026, 4, 1))["USD"]
    moved = sum(Decimal(m["amount"]) for m in f["movements"])
    assert Decimal(f["opening_mrr"]) + moved == Decimal(f["mrr"])
    assert sum(Decimal(p["mrr"]) for p in f["plans"]) == Decimal(f["mrr"])


def test_decimals_are_the_currencys(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2026, 3, 1), "1000", 12, currency="JPY"),
            Term(D(2026, 3, 1), "1.000", 3, customer=2, currency="KWD"),
        ],
    )
    publish(engine, "2026-03", "2026-03")
    shown = figures(engine, D(2026, 3, 1))
    assert shown["JPY"]["mrr"] == "83"
    assert shown["KWD"]["mrr"] == "0.333"


def test_a_currency_with_nothing_but_activations_is_reported(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 3), "5.00", 0, 7)])
    publish(engine, "2026-03", "2026-03")
    f = figures(engine, D(2026, 3, 1))["USD"]
    assert (f["mrr"], f["active_plans"], f["kinds"]["new"]["plans"]) == ("0.00", 0, 1)


def test_an_empty_month_has_no_currency(engine: Engine) -> None:
    publish(engine, "2026-03", "2026-03")
    assert figures(engine, D(2026, 3, 1)) == {}
