"""Renewals, retention and deferred revenue of the sample agree with the pandas calculation."""

from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.revenue.conftest import AS_OF, GRACE, SAMPLE
from tests.revenue.history import rows
from tests.revenue.second_retention import Figures, calculate

_MONTH = "to_char(month, 'YYYY-MM'), currency"
SELECTS = {
    "renewals": (
        3,
        f"{_MONTH}, plan_code, sum(due), sum(on_time), sum(in_grace), sum(reactivated),"
        " sum(cancelled), sum(waiting), sum(lapsed)"
        " FROM revenue.renewal_outcomes GROUP BY 1, 2, 3",
    ),
    "retention": (
        3,
        f"{_MONTH}, window_months, customers_before, customers_kept, mrr_before,"
        " mrr_kept, mrr_now FROM revenue.retention",
    ),
    "cohorts": (
        3,
        f"{_MONTH}, to_char(cohort, 'YYYY-MM'), customers, customers_kept, mrr,"
        " mrr_kept, mrr_now FROM revenue.cohorts",
    ),
    "deferred": (
        2,
        f"{_MONTH}, opening, billed, recognised, closing FROM revenue.deferred_revenue",
    ),
}


@pytest.fixture(scope="module")
def second() -> Figures:
    return calculate(SAMPLE, AS_OF, GRACE)


@pytest.mark.parametrize("figure", SELECTS)
def test_both_calculations_agree(sample: Engine, second: Figures, figure: str) -> None:
    keys, select = SELECTS[figure]
    found: dict[Any, tuple[Any, ...]] = {
        row[:keys]: row[keys:] for row in rows(sample, f"SELECT {select}")
    }
    expected = getattr(second, figure)
    assert found.keys() == expected.keys()
    assert len({month for month, *_ in expected}) >= 12
    apart = {
        key: (numbers, tuple(map(float, expected[key])))
        for key, numbers in found.items()
        # Deferred revenue is exact; MRR is not rounded, and thirds have no end.
        if any(
            abs(Fraction(a) - b) > (Fraction(0) if figure == "deferred" else Fraction(1, 10**9))
            for a, b in zip(numbers, expected[key], strict=True)
        )
    }
    assert apart == {}


def test_the_sample_has_what_is_to_be_told_apart(second: Figures) -> None:
    columns = zip(*second.renewals.values(), strict=True)
    due, on_time, _, _, _, waiting, lapsed = (sum(column) for column in columns)
    assert due > on_time > 1000
    assert min(waiting, lapsed) > 0
    assert any(kept < all_of for all_of, kept, *_ in second.retention.values())
    assert {window for _, _, window in second.retention} == {1, 12}
