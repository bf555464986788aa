"""Retention and cohorts by worked examples, and against plain counting over random terms."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from prepaid_pipeline.revenue.figures import Span, last_day
from tests.budget import examples
from tests.revenue import chains, history
from tests.revenue.chains import FIRST, MONTHS, Chain
from tests.revenue.history import Balance, Term, insert, publish, rows
from tests.world import World

D = date
_RETENTION = (
    "SELECT customers_before, customers_kept, round(mrr_before, 2), round(mrr_kept, 2),"
    " round(mrr_now, 2) FROM revenue.retention"
    " WHERE month = CAST(:month AS date) AND window_months = :window"
)
_COHORTS = (
    "SELECT to_char(cohort, 'YYYY-MM'), customers, customers_kept, round(mrr, 2),"
    " round(mrr_kept, 2), round(mrr_now, 2) FROM revenue.cohorts"
    " WHERE month = CAST(:month AS date) ORDER BY cohort"
)


def amounts(*texts: str) -> tuple[Decimal, ...]:
    return tuple(Decimal(text) for text in texts)


def retention(engine: Engine, month: str, window: int) -> tuple[Any, ...] | None:
    found = rows(engine, _RETENTION, month=f"{month}-01", window=window)
    return found[0] if found else None


@pytest.fixture
def four_customers(engine: Engine) -> Engine:
    """In March 2025 four pay 10.00; a year later one pays more, one less, one has gone and one was
    away for a while; a fifth came in between.
    """
    monthly = [Term(D(2025, n, 5), customer=4) for n in (3, 4, 5)]
    insert(
        engine,
        [
            Term(D(2025, 3, 5), "120.00", 12, customer=1),
            Term(D(2026, 3, 5), "144.00", 12, customer=1),
            Term(D(2025, 3, 5), "120.00", 12, customer=2),
            Term(D(2026, 3, 5), "84.00", 12, customer=2),
            Term(D(2025, 3, 5), "120.00", 12, customer=3),
            *monthly,
            Term(D(2026, 2, 5), "180.00", 12, customer=4),
            Term(D(2025, 9, 5), "600.00", 12, customer=5),
        ],
    )
    publish(engine, "2025-03", "2026-04")
    return engine


def test_a_year_later(four_customers: Engine) -> None:
    """Of 40.00: 10.00 + 7.00 + 10.00 are kept, and 12.00 + 7.00 + 15.00 is what they are now."""
    assert retention(four_customers, "2026-03", 12) == (4, 3, *amounts("40", "27", "34"))
    # A month earlier nobody was there yet a year ago.
    assert retention(four_customers, "2026-02", 12) is None
    assert retention(four_customers, "2026-04", 12) == (4, 3, *amounts("40", "27", "34"))


def test_a_month_later(four_customers: Engine) -> None:
    """Customer 1 grows, 2 shrinks, 3 leaves; 4 and 5 stay: 10 + 10 + 10 + 15 + 50."""
    assert retention(four_customers, "2026-03", 1) == (5, 4, *amounts("95", "82", "84"))
    assert retention(four_customers, "2025-03", 1) is None
    assert retention(four_customers, "2025-06", 1) == (4, 3, *amounts("40", "30", "30"))


def test_cohorts_follow_their_customers(four_customers: Engine) -> None:
    assert rows(four_customers, _COHORTS, month="2026-03-01") == [
        ("2025-03", 4, 3, *amounts("40", "27", "34")),
        ("2025-09", 1, 1, *amounts("50", "50", "50")),
    ]
    assert rows(four_customers, _COHORTS, month="2025-07-01") == [
        ("2025-03", 4, 3, *amounts("40", "30", "30"))
    ]


def test_two_currencies_of_a_customer_are_two_cohorts(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 1, 5), months=12), Term(D(2026, 2, 5), months=12, currency="EUR")])
    publish(engine, "2026-03", "2026-03")
    found = rows(
        engine, "SELECT currency, to_char(cohort, 'YYYY-MM') FROM revenue.cohorts ORDER BY 1"
    )
    assert found == [("EUR", "2026-02"), ("USD", "2026-01")]


@pytest.fixture
def shared_engine(module_world: World) -> Engine:
    return module_world.engine


def plainly(now: Balance, before: Balance) -> dict[str, list[Any]]:
    """Per currency: customers before and kept, MRR before, kept and now, customer by customer."""
    found: dict[str, list[Any]] = defaultdict(lambda: [0, 0, Fraction(0), Fraction(0), Fraction(0)])
    for (customer, currency), old in before.items():
        if old > 0:
            new = now.get((customer, currency), Fraction(0))
            entry = found[currency]
            entry[0] += 1
            entry[1] += new > 0
            entry[2] += old
            entry[3] += min(old, new)
            entry[4] += new
    return dict(found)


def counted_cohorts(balances: Sequence[Balance], place: int) -> dict[tuple[str, int], list[Any]]:
    first: dict[tuple[int, str], int] = {}
    for month, balance in enumerate(balances[: place + 1]):
        for key, amount in balance.items():
            if amount > 0:
                first.setdefault(key, month)
    found: dict[tuple[str, int], list[Any]] = {}
    for key, month in first.items():
        began = {key: balances[month][key]}
        one = plainly(balances[place], began)[key[1]]
        entry = found.setdefault((key[1], month), [0] * 5)
        found[key[1], month] = [a + b for a, b in zip(entry, one, strict=True)]
    return found


def assert_close(found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert len(found) == len(expected)
    assert all(
        abs(Fraction(a) - Fraction(b)) < Fraction(1, 10**9)
        for a, b in zip(found, expected, strict=True)
    ), (found, expected)


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    given_chains=chains.chains(),
    begin=st.integers(0, MONTHS - 1),
    length=st.integers(0, 5),
    cut=st.integers(0, 30),
)
def test_against_plain_counting(
    shared_engine: Engine, given_chains: list[Chain], begin: int, length: int, cut: int
) -> None:
    months = Span(FIRST, D(2025, 4, 1), D(2025, 5, 1)).months()
    first, last = begin, min(begin + length, MONTHS - 1)
    as_of = min(months[last] + timedelta(days=cut), last_day(months[last]))
    terms = [
        link.term(chain.customer, chain.currency)
        for chain, link in chains.known(given_chains, as_of)
    ]
    days = [last_day(month) for month in months[:last]] + [as_of]
    balances = list(history.counted_balances(terms, days))

    chains.clear(shared_engine)
    chains.insert(shared_engine, given_chains)
    publish(shared_engine, f"{months[first]:%Y-%m}", f"{months[last]:%Y-%m}", as_of)

    for i in range(first, last + 1):
        for window in (1, 12):
            before = balances[i - window] if i >= window else {}
            expected = plainly(balances[i], before)
            found = {
                currency: numbers
                for currency, *numbers in rows(
                    shared_engine,
                    "SELECT currency, customers_before, customers_kept, mrr_before, mrr_kept,"
                    " mrr_now FROM revenue.retention"
                    " WHERE month = :month AND window_months = :window",
                    month=months[i],
                    window=window,
                )
            }
            assert found.keys() == expected.keys(), (months[i], window)
            for currency, numbers in expected.items():
                assert_close(found[currency], numbers)
        cohorts = {
            (currency, months.index(cohort)): numbers
            for currency, cohort, *numbers in rows(
                shared_engine,
                "SELECT currency, cohort, customers, customers_kept, mrr, mrr_kept, mrr_now"
                " FROM revenue.cohorts WHERE month = :month",
                month=months[i],
            )
        }
        wanted = counted_cohorts(balances, i)
        assert cohorts.keys() == wanted.keys()
        for key, numbers in wanted.items():
            assert_close(cohorts[key], numbers)
