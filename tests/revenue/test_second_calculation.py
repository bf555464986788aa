"""The SQL's figures over the sample agree with an independent calculation, month by month."""

from datetime import date
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.revenue.report.content import converted
from tests.revenue.conftest import AS_OF, GRACE, SAMPLE
from tests.revenue.history import rows
from tests.revenue.second_calculation import Figures, calculate, convert
from tests.revenue.test_converted import set_rate

A_CENT = Fraction(1, 100)


@pytest.fixture(scope="module")
def second() -> Figures:
    return calculate(SAMPLE, AS_OF, GRACE)


@pytest.mark.parametrize(
    ("figure", "select"),
    [
        ("mrr", "currency, plan_code, active_plans, mrr FROM revenue.mrr"),
        ("movements", "currency, movement, customers, amount FROM revenue.mrr_movements"),
        (
            "activations",
            "currency, plan_code, kind, plans, net_amount FROM revenue.plan_activations",
        ),
        ("countries", "currency, country, active_plans, mrr FROM revenue.mrr_by_country"),
        (
            "customers",
            "currency, country, customers, mrr FROM revenue.mrr_by_country WHERE customers > 0",
        ),
        (
            "activations_by_country",
            "currency, country, kind, plans, net_amount FROM revenue.activations_by_country",
        ),
    ],
)
def test_both_calculations_agree(sample: Engine, second: Figures, figure: str, select: str) -> None:
    found: dict[Any, tuple[int, Fraction]] = {
        tuple(key): (number, Fraction(amount))
        for *key, number, amount in rows(sample, f"SELECT to_char(month, 'YYYY-MM'), {select}")
    }
    expected = getattr(second, figure)
    assert len({month for month, *_ in expected}) >= 24
    assert {key: number for key, (number, _) in found.items()} == {
        key: number for key, (number, _) in expected.items()
    }
    apart = {
        key: (float(amount), float(expected[key][1]))
        for key, (_, amount) in found.items()
        # Every figure of every plan, far below a cent: their totals agree to the cent as well.
        if abs(amount - expected[key][1]) > A_CENT / 10**6
    }
    assert apart == {}


def test_both_convert_to_the_cent(sample: Engine, second: Figures) -> None:
    """Every currency of the sample into Swiss francs, at rates that change every month."""
    months = sorted({month for month, *_ in second.mrr})
    currencies = sorted({currency for _, currency, _ in second.mrr})
    rates = {
        (month, currency): Fraction(7 + 3 * place + 5 * (n % 4), 10)
        for n, month in enumerate(months)
        for place, currency in enumerate(currencies)
    }
    assert len(currencies) > 1
    for (month, currency), rate in rates.items():
        first_day = date.fromisoformat(f"{month}-01")
        set_rate(sample, first_day, str(float(rate)), currency, "CHF")
    with sample.connect() as connection:
        first, last = (date.fromisoformat(f"{m}-01") for m in (months[1], months[-1]))
        found = converted.collect(connection, first, last, "CHF")
    assert len(found) == len(months) - 1
    for before, month in pairwise(months):
        part = found[date.fromisoformat(f"{month}-01")]["converted"]
        shown = {m["movement"]: m["amount"] for m in part["movements"]} | {
            key: part[key]
            for key in ("opening_mrr", "mrr", "exchange_rates", "new_net", "renewal_net")
        }
        expected = convert(second, rates, month, before)
        for key, amount in shown.items():
            # A line that is shown is at most a cent from its exact value: it adds up with others.
            assert abs(Fraction(amount) - expected.get(key, Fraction(0))) < A_CENT, (month, key)
        assert abs(Fraction(shown["mrr"]) - expected["mrr"]) <= A_CENT / 2


def test_the_sample_moves_in_every_way(second: Figures) -> None:
    assert {movement for _, _, movement in second.movements} == {
        "new",
        "reactivation",
        "expansion",
        "contraction",
        "churn",
    }
    assert {kind for *_, kind in second.activations} == {"new", "renewal", "reactivation"}
