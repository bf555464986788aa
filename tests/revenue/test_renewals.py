"""What became of the terms that ended: worked examples, and against plain counting."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from prepaid_pipeline.revenue.figures import Span, last_day
from tests.budget import examples
from tests.revenue import chains
from tests.revenue.chains import FIRST, GRACE_DAYS, MONTHS, Chain, Link, month_of
from tests.revenue.history import publish, rows
from tests.world import World

D = date
OUTCOMES = ("on_time", "in_grace", "reactivated", "cancelled", "waiting", "lapsed")
MARCH, APRIL = Link(D(2026, 3, 10)), D(2026, 4, 10)


def outcomes(engine: Engine, month: str = "2026-04") -> dict[str, int]:
    """Outcome -> terms, of those that there are."""
    ((due, *counts),) = rows(
        engine,
        "SELECT coalesce(sum(due), 0)::integer, sum(on_time)::integer, sum(in_grace)::integer,"
        " sum(reactivated)::integer, sum(cancelled)::integer, sum(waiting)::integer,"
        " sum(lapsed)::integer FROM revenue.renewal_outcomes WHERE month = CAST(:month AS date)",
        month=f"{month}-01",
    )
    found = {outcome: n for outcome, n in zip(OUTCOMES, counts, strict=True) if n}
    assert due == sum(found.values())
    return found


def renewed(day: date, activated_on: date | None = None, kind: str = "renewal") -> Link:
    return Link(day, kind=kind, activated_on=activated_on)


@pytest.mark.parametrize(
    ("links", "cancelled_on", "april"),
    [
        pytest.param([MARCH, renewed(APRIL)], None, "on_time", id="on the day it ended"),
        pytest.param([MARCH, renewed(APRIL, D(2026, 3, 25))], None, "on_time", id="in advance"),
        pytest.param([MARCH, renewed(APRIL, D(2026, 4, 11))], None, "in_grace", id="a day late"),
        pytest.param([MARCH, renewed(APRIL, D(2026, 4, 17))], None, "in_grace", id="the last day"),
        pytest.param(
            [MARCH, renewed(D(2026, 4, 12))],
            None,
            "in_grace",
            id="imported with a gap within grace",
        ),
        pytest.param(
            [MARCH, renewed(D(2026, 4, 18), kind="reactivation")],
            None,
            "reactivated",
            id="after a gap",
        ),
        pytest.param(
            [MARCH, renewed(D(2026, 5, 7), kind="reactivation")],
            None,
            "reactivated",
            id="on the last day on which the month is open",
        ),
        pytest.param(
            [MARCH, renewed(D(2026, 5, 8), kind="reactivation")],
            None,
            "lapsed",
            id="too late for the month",
        ),
        pytest.param([MARCH], None, "lapsed", id="not renewed"),
        pytest.param([MARCH], APRIL, "cancelled", id="left at the end of the term"),
        pytest.param([MARCH], D(2026, 3, 20), "cancelled", id="said so before"),
        pytest.param([MARCH], D(2026, 4, 11), "lapsed", id="cancelled when it had lapsed"),
        pytest.param([MARCH, renewed(APRIL)], APRIL, "on_time", id="renewed all the same"),
        pytest.param(
            [replace(MARCH, months=12, cut_to=APRIL)], APRIL, "cancelled", id="cancelled at once"
        ),
        pytest.param(
            [
                replace(MARCH, months=12, cut_to=APRIL, followed=True),
                Link(APRIL, 12, kind="change"),
            ],
            None,
            None,
            id="cut by a change of plan",
        ),
        pytest.param(
            [MARCH, renewed(D(2026, 4, 12), kind="change")],
            None,
            "in_grace",
            id="a change that began within grace",
        ),
        pytest.param(
            [MARCH, renewed(D(2026, 4, 20), kind="change")],
            None,
            "reactivated",
            id="a change that began later",
        ),
        pytest.param(
            [MARCH, replace(renewed(APRIL, D(2026, 4, 1)), cut_to=APRIL)],
            APRIL,
            "cancelled",
            id="paid in advance, cancelled before it began",
        ),
        pytest.param(
            [replace(renewed(APRIL), cut_to=APRIL)],
            APRIL,
            "cancelled",
            id="bought and cancelled on one day",
        ),
        pytest.param(
            [Link(D(2026, 4, 3), months=0, days=7), renewed(D(2026, 4, 14), kind="reactivation")],
            None,
            "reactivated",
            id="a week has three days of grace",
        ),
    ],
)
def test_each_term_that_ended_has_one_outcome(
    engine: Engine, links: list[Link], cancelled_on: date | None, april: str | None
) -> None:
    chains.insert(engine, [Chain(tuple(links), cancelled_on=cancelled_on)])
    publish(engine, "2026-03", "2026-05", D(2026, 7, 31))
    assert outcomes(engine) == ({april: 1} if april else {})
    # Alone and on the day it closes, the month says the same.
    publish(engine, "2026-04", "2026-04", D(2026, 5, 8), replay=True)
    assert outcomes(engine) == ({april: 1} if april else {})


def test_a_term_cancelled_after_its_renewal_began_is_due_itself(engine: Engine) -> None:
    chains.insert(
        engine, [Chain((MARCH, replace(renewed(APRIL), cut_to=APRIL)), cancelled_on=APRIL)]
    )
    publish(engine, "2026-04", "2026-04")
    assert outcomes(engine) == {"on_time": 1, "cancelled": 1}


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [
        (D(2026, 4, 9), {}),
        (APRIL, {"waiting": 1}),
        (D(2026, 4, 17), {"waiting": 1}),
        (D(2026, 4, 18), {"lapsed": 1}),
        (D(2026, 4, 25), {"reactivated": 1}),
    ],
)
def test_while_the_days_of_grace_run_a_term_waits(
    engine: Engine, as_of: date, expected: dict[str, int]
) -> None:
    back = renewed(D(2026, 4, 25), kind="reactivation")
    chains.insert(engine, [Chain((MARCH, back))])
    publish(engine, "2026-04", "2026-04", as_of)
    assert outcomes(engine) == expected


def test_the_days_of_grace_are_the_installations(engine: Engine) -> None:
    chains.insert(engine, [Chain((MARCH,))])
    publish(engine, "2026-04", "2026-04", D(2026, 4, 18))
    assert outcomes(engine) == {"lapsed": 1}
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prepaid.installation SET grace_days = 10")
    publish(engine, "2026-04", "2026-04", D(2026, 4, 18))
    assert outcomes(engine) == {"waiting": 1}


def test_by_plan_currency_and_country_of_the_term_that_ended(engine: Engine) -> None:
    chains.insert(
        engine,
        [
            Chain((MARCH, Link(APRIL, 12, kind="renewal"))),
            Chain((MARCH,), 2, "EUR", "DE"),
            Chain((Link(D(2026, 1, 10), 3),), 3, "USD", "CA"),
            Chain((MARCH,), 4),
        ],
    )
    publish(engine, "2026-04", "2026-04")
    found = rows(
        engine,
        "SELECT currency, plan_code, country, due, on_time, waiting + lapsed"
        " FROM revenue.renewal_outcomes ORDER BY 1, 2, 3",
    )
    assert found == [
        ("EUR", "P1M0D", "DE", 1, 0, 1),
        ("USD", "P1M0D", "US", 2, 1, 1),
        ("USD", "P3M0D", "CA", 1, 0, 1),
    ]


def test_the_terms_behind_a_figure(engine: Engine) -> None:
    chains.insert(engine, [Chain((MARCH, renewed(APRIL)))])
    found = rows(
        engine,
        "SELECT service_plan_id, ended_on, outcome, renewed_by"
        " FROM revenue.terms_due('2026-04-01', '2026-04-01', '2026-04-30')",
    )
    assert found == [(1, APRIL, "on_time", 2)]


@pytest.fixture
def shared_engine(module_world: World) -> Engine:
    return module_world.engine


def counted(given_chains: list[Chain], month: date, as_of: date) -> Counter[tuple[str, str, str]]:
    """(currency, country, outcome) -> terms that ended in the month, one by one."""
    found: Counter[tuple[str, str, str]] = Counter()
    until = min(as_of, last_day(month) + timedelta(days=GRACE_DAYS))
    for chain in given_chains:
        for link, after in zip(chain.links, (*chain.links[1:], None), strict=True):
            if link.activated > as_of or link.end > as_of or month_of(link.end) != month:
                continue
            if link.cut_to and link.followed:
                continue
            if link.start == link.end and link.activated < link.start:
                continue
            began = max(after.start, after.activated) if after else date.max
            if after and after.start == after.end and after.activated < after.start:
                after = None
            if after and after.activated <= until:
                if began <= link.end:
                    outcome = "on_time"
                else:
                    outcome = "in_grace" if began <= link.end + link.grace else "reactivated"
            elif link.status == "Cancelled" or (chain.cancelled_on or date.max) <= link.end:
                outcome = "cancelled"
            else:
                outcome = "waiting" if as_of <= link.end + link.grace else "lapsed"
            found[chain.currency, chain.country, outcome] += 1
    return found


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    given_chains=chains.chains(),
    begin=st.integers(0, MONTHS - 1),
    length=st.integers(0, 5),
    later=st.integers(-30, 60),
)
def test_against_plain_counting(
    shared_engine: Engine, given_chains: list[Chain], begin: int, length: int, later: int
) -> None:
    months = Span(FIRST, D(2025, 4, 1), D(2025, 5, 1)).months()
    first, last = begin, min(begin + length, MONTHS - 1)
    as_of = max(last_day(months[last]) + timedelta(days=later), months[last])
    chains.clear(shared_engine)
    chains.insert(shared_engine, given_chains)
    publish(shared_engine, f"{months[first]:%Y-%m}", f"{months[last]:%Y-%m}", as_of)
    for month in months[first : last + 1]:
        found: Counter[tuple[str, str, str]] = Counter()
        for currency, country, *counts in rows(
            shared_engine,
            "SELECT currency, country, on_time, in_grace, reactivated, cancelled, waiting, lapsed"
            " FROM revenue.renewal_outcomes WHERE month = :month",
            month=month,
        ):
            for outcome, n in zip(OUTCOMES, counts, strict=True):
                found[currency, country, outcome] += n
        assert +found == counted(given_chains, month, as_of), month
