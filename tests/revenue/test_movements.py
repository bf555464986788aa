"""What moves MRR: worked examples, and the figures against plain counting over random terms."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from prepaid_pipeline.revenue.figures import Span, last_day
from tests.budget import examples
from tests.revenue import history
from tests.revenue.history import Term, insert, movements, publish, rows
from tests.world import World

D = date


def cut(start: date, end: date, **other: Any) -> Term:
    """A yearly term of 10.00 a month that was cancelled at once."""
    return Term(start, "120.00", 12, end=end, status="Cancelled", **other)


@pytest.mark.parametrize(
    ("terms", "april"),
    [
        pytest.param([Term(D(2026, 4, 3))], {"new": (1, "10.00")}, id="first revenue ever"),
        pytest.param([Term(D(2026, 3, 3)), Term(D(2026, 4, 3))], {}, id="same price again"),
        pytest.param(
            [Term(D(2026, 3, 3)), Term(D(2026, 4, 3), "12.50")],
            {"expansion": (1, "2.50")},
            id="renewed at a higher price",
        ),
        pytest.param(
            [Term(D(2026, 3, 3)), Term(D(2026, 4, 3), "9.00")],
            {"contraction": (1, "-1.00")},
            id="renewed at a lower price",
        ),
        pytest.param([Term(D(2026, 3, 3))], {"churn": (1, "-10.00")}, id="not renewed"),
        pytest.param(
            [Term(D(2026, 1, 3)), Term(D(2026, 4, 20))],
            {"reactivation": (1, "10.00")},
            id="came back",
        ),
        pytest.param(
            [Term(D(2026, 3, 3)), Term(D(2026, 4, 20))],
            {},
            id="a gap within the month is none at the month ends",
        ),
        pytest.param(
            [Term(D(2026, 3, 3), months=12, price="120.00"), Term(D(2026, 4, 3), "5.00")],
            {"expansion": (1, "5.00")},
            id="a second subscription expands",
        ),
        pytest.param(
            [Term(D(2026, 4, 3)), Term(D(2026, 4, 7), "5.00")],
            {"new": (1, "15.00")},
            id="two purchases in a month are one new customer",
        ),
        pytest.param(
            [Term(D(2026, 4, 3)), Term(D(2026, 4, 3), "5.00", customer=2)],
            {"new": (2, "15.00")},
            id="two customers",
        ),
        pytest.param(
            [history.weekly(D(2026, 3, 3)), Term(D(2026, 4, 3))],
            {"new": (1, "10.00")},
            id="an earlier week saw no month end",
        ),
        pytest.param(
            [Term(D(2026, 1, 1), "0.00", 12), Term(D(2026, 4, 3))],
            {"new": (1, "10.00")},
            id="free before: had no revenue",
        ),
        pytest.param(
            [
                Term(D(2026, 3, 3), "120.00", 12, end=D(2026, 4, 15)),
                Term(D(2026, 4, 15), "240.00", 12, kind="change"),
            ],
            {"expansion": (1, "10.00")},
            id="changed mid-term to a dearer plan",
        ),
        pytest.param(
            [
                Term(D(2026, 3, 3), "240.00", 12, end=D(2026, 4, 15)),
                Term(D(2026, 4, 15), "15.00", kind="change"),
            ],
            {"contraction": (1, "-5.00")},
            id="changed mid-term to a cheaper plan",
        ),
        pytest.param(
            [
                Term(D(2026, 3, 3), "120.00", 12, end=D(2026, 4, 15)),
                Term(D(2026, 4, 15), "10.00", kind="change"),
            ],
            {},
            id="changed mid-term to the same revenue",
        ),
        pytest.param(
            [
                Term(D(2026, 3, 30), "10.00", end=D(2026, 4, 1)),
                Term(D(2026, 4, 1), "25.00", kind="change", activated_on=D(2026, 4, 3)),
            ],
            {"expansion": (1, "15.00")},
            id="changed on the first day of the month",
        ),
        pytest.param(
            [cut(D(2026, 3, 3), D(2026, 4, 15))], {"churn": (1, "-10.00")}, id="cancelled at once"
        ),
        pytest.param(
            [cut(D(2026, 3, 3), D(2026, 4, 1))],
            {"churn": (1, "-10.00")},
            id="cancelled on the first day of the month",
        ),
        pytest.param(
            [cut(D(2026, 4, 3), D(2026, 4, 20))], {}, id="bought and cancelled within the month"
        ),
        pytest.param([cut(D(2026, 4, 3), D(2026, 4, 3))], {}, id="cancelled on its first day"),
        pytest.param(
            [cut(D(2026, 4, 3), D(2026, 4, 3)), Term(D(2026, 4, 3), "25.00")],
            {"new": (1, "25.00")},
            id="cancelled on its first day and bought anew",
        ),
        pytest.param(
            [Term(D(2026, 3, 3)), cut(D(2026, 4, 3), D(2026, 4, 3)), Term(D(2026, 4, 3), "25.00")],
            {"expansion": (1, "15.00")},
            id="an empty term between two others",
        ),
        pytest.param(
            [cut(D(2026, 3, 3), D(2026, 4, 1)), Term(D(2026, 4, 20), "25.00")],
            {"expansion": (1, "15.00")},
            id="cancelled and back within the month",
        ),
    ],
)
def test_worked_examples(engine: Engine, terms: list[Term], april: dict[str, list[str]]) -> None:
    insert(engine, terms)
    publish(engine, "2026-01", "2026-06")
    expected = {movement: (n, Decimal(amount)) for movement, (n, amount) in april.items()}
    assert movements(engine, "2026-04") == expected


def test_a_customers_whole_story(engine: Engine) -> None:
    """The story of ChartMogul Help, article 201244842: four yearly plans for 2,000.00; two monthly
    ones at 30.00 a few days later, which is a month later here; they are not renewed; the yearly
    ones end; three monthly ones at 50.00 bring the customer back.
    """
    yearly = [Term(D(2025, 1, 10), "500.00", 12) for _ in range(4)]
    silver = [Term(D(2025, 2, 3), "30.00") for _ in range(2)]
    gold = [Term(D(2026, 5, 20), "50.00") for _ in range(3)]
    insert(engine, [*yearly, *silver, *gold])
    publish(engine, "2025-01", "2026-06")
    found = rows(
        engine,
        "SELECT to_char(month, 'YYYY-MM'), movement, customers, round(amount, 2)::text"
        " FROM revenue.mrr_movements ORDER BY 1, 2",
    )
    assert found == [
        ("2025-01", "new", 1, "166.67"),
        ("2025-02", "expansion", 1, "60.00"),
        ("2025-03", "contraction", 1, "-60.00"),
        ("2026-01", "churn", 1, "-166.67"),
        ("2026-05", "reactivation", 1, "150.00"),
        ("2026-06", "churn", 1, "-150.00"),
    ]
    assert_identity(engine)


def test_the_very_first_month_is_all_new(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 4, 3)), Term(D(2026, 4, 4), "5.00", customer=2)])
    publish(engine, "2026-04", "2026-04")
    assert movements(engine, "2026-04") == {"new": (2, Decimal("15.00"))}
    bridge = rows(
        engine,
        "SELECT opening_mrr, closing_mrr, opening_customers, closing_customers"
        " FROM revenue.mrr_bridge",
    )
    assert bridge == [(0, 15, 0, 2)]


FIRST, MONTHS = D(2024, 1, 1), 14
DAYS = st.integers(0, 31 * MONTHS).map(lambda n: FIRST + timedelta(days=n))


def cut_after(term: Term, days: int) -> Term:
    """The term cut after so many days, if it lasts longer; on its first day only as Cancelled."""
    end = term.start + timedelta(days=days)
    if term.status == "Pending" or end >= term.end_date:
        return term
    return replace(term, end=end, status=term.status if days else "Cancelled")


TERMS = st.lists(
    st.builds(
        Term,
        start=DAYS,
        price=st.decimals(0, 999, places=2).map(str),
        customer=st.integers(1, 4),
        currency=st.sampled_from(["USD", "EUR"]),
        status=st.sampled_from(["Active", "Expired", "Pending", "Cancelled"]),
    )
    .flatmap(
        lambda term: st.sampled_from([(1, 0), (3, 0), (12, 0), (0, 7), (0, 30)]).map(
            lambda length: Term(
                term.start,
                term.price,
                *length,
                customer=term.customer,
                currency=term.currency,
                status=term.status,
            )
        )
    )
    .flatmap(
        lambda term: st.one_of(st.just(term), st.integers(0, 400).map(partial(cut_after, term)))
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture
def shared_engine(module_world: World) -> Engine:
    return module_world.engine


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    terms=TERMS, begin=st.integers(0, MONTHS - 1), length=st.integers(0, 4), cut=st.integers(0, 30)
)
def test_against_plain_counting(
    shared_engine: Engine, terms: list[Term], begin: int, length: int, cut: int
) -> None:
    months = Span(FIRST, D(2025, 2, 1), D(2025, 3, 1)).months()
    first, last = begin, min(begin + length, MONTHS - 1)
    # The last month may be the running one, on any of its days.
    as_of = min(months[last] + timedelta(days=cut), last_day(months[last]))
    known = [term for term in terms if term.activated and term.activated <= as_of]
    days = [last_day(month) for month in months[:last]] + [as_of]
    balances = list(history.counted_balances(known, days))
    expected = history.counted_movements(balances)

    history.clear(shared_engine)
    insert(shared_engine, terms)
    publish(shared_engine, f"{months[first]:%Y-%m}", f"{months[last]:%Y-%m}", as_of)

    for i in range(first, last + 1):
        month = {"month": months[i]}
        found = rows(
            shared_engine,
            "SELECT currency, movement, customers, amount"
            " FROM revenue.mrr_movements WHERE month = :month",
            **month,
        )
        assert {(c, m): n for c, m, n, _ in found} == {k: v[0] for k, v in expected[i].items()}
        for currency, movement, _, amount in found:
            assert abs(Fraction(amount) - expected[i][currency, movement][1]) < Fraction(1, 10**9)
        active = rows(
            shared_engine,
            "SELECT currency, sum(active_plans), sum(mrr)"
            " FROM revenue.mrr WHERE month = :month GROUP BY 1",
            **month,
        )
        assert {c: n for c, n, _ in active} == counted_plans(known, days[i])
        for currency, _, amount in active:
            wanted = sum(v for (_, c), v in balances[i].items() if c == currency)
            assert abs(Fraction(amount) - wanted) < Fraction(1, 10**9)
    assert_identity(shared_engine)


def counted_plans(terms: list[Term], day: date) -> dict[str, int]:
    active = [term.currency for term in terms if term.start <= day < term.end_date]
    return {currency: active.count(currency) for currency in set(active)}


def assert_identity(engine: Engine) -> None:
    """Start + movements = end, exactly and without any rounding."""
    broken = rows(
        engine,
        """
        SELECT b.month, b.currency FROM revenue.mrr_bridge b
        WHERE b.opening_mrr + coalesce((SELECT sum(amount) FROM revenue.mrr_movements m
                  WHERE (m.month, m.currency) = (b.month, b.currency)), 0) <> b.closing_mrr
           OR b.closing_mrr <> coalesce((SELECT sum(mrr) FROM revenue.mrr m
                  WHERE (m.month, m.currency) = (b.month, b.currency)), 0)
        UNION ALL
        SELECT m.month, m.currency FROM revenue.mrr_movements m
        WHERE NOT EXISTS (SELECT FROM revenue.mrr_bridge b
                          WHERE (m.month, m.currency) = (b.month, b.currency))""",
    )
    assert broken == []
