"""Anchored terms: counted from the anchor, never from the previous start."""

from datetime import date, timedelta

import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.world import World

_MONTH_LENGTHS = st.sampled_from([1, 2, 3, 6, 12, 24])
_DAYS = st.dates(date(2000, 1, 1), date(2060, 12, 31))


def starts(world: World, anchor: date, months: int, days: int, terms: int) -> list[date]:
    """The starts of consecutive terms, each from the one before as renewals are."""
    found = [anchor]
    with world.engine.connect() as connection:
        for _ in range(terms):
            found.append(
                connection.exec_driver_sql(
                    "SELECT prepaid.term_end(prepaid.anchor_for(%s, %s), %s, %s, %s)",
                    (anchor, found[-1], found[-1], months, days),
                ).scalar_one()
            )
    return found


@pytest.mark.parametrize(
    ("anchor", "months", "expected"),
    [
        ("2026-01-31", 1, ["2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        ("2028-01-30", 1, ["2028-02-29", "2028-03-30", "2028-04-30"]),
        ("2024-02-29", 12, ["2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
        ("2026-08-31", 3, ["2026-11-30", "2027-02-28", "2027-05-31"]),
        ("2026-12-31", 1, ["2027-01-31", "2027-02-28"]),
    ],
)
def test_month_ends(module_world: World, anchor: str, months: int, expected: list[str]) -> None:
    found = starts(module_world, date.fromisoformat(anchor), months, 0, len(expected))
    assert [day.isoformat() for day in found[1:]] == expected


@hypothesis_settings(max_examples=100, deadline=None)
@given(anchor=_DAYS, months=_MONTH_LENGTHS, terms=st.integers(1, 30))
def test_term_n_starts_at_the_anchor_plus_n_intervals(
    module_world: World, anchor: date, months: int, terms: int
) -> None:
    """Against dateutil's relativedelta, which also cuts off at the month's end."""
    found = starts(module_world, anchor, months, 0, terms)
    assert found == [anchor + relativedelta(months=n * months) for n in range(terms + 1)]


@hypothesis_settings(max_examples=50, deadline=None)
@given(anchor=_DAYS, days=st.integers(1, 400), terms=st.integers(1, 10))
def test_terms_in_days(module_world: World, anchor: date, days: int, terms: int) -> None:
    found = starts(module_world, anchor, 0, days, terms)
    assert found == [anchor + timedelta(days=n * days) for n in range(terms + 1)]


@hypothesis_settings(max_examples=100, deadline=None)
@given(anchor=_DAYS, start=_DAYS)
def test_a_start_off_the_grid_is_a_new_anchor(
    module_world: World, anchor: date, start: date
) -> None:
    with module_world.engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT prepaid.anchor_for(%s, %s)", (anchor, start)
        ).scalar_one()
    distance = (start.year - anchor.year) * 12 + start.month - anchor.month
    on_grid = anchor + relativedelta(months=distance) == start
    assert found == (anchor if on_grid else start)
