"""Revenue and activations by country: the customer's when the term was invoiced or imported."""

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from prepaid_pipeline.revenue.figures import last_day
from prepaid_pipeline.revenue.report.content.figures import collect, same
from tests.budget import examples
from tests.revenue import history
from tests.revenue.history import Term, insert, publish, rows, weekly
from tests.revenue.test_movements import FIRST, MONTHS, TERMS, assert_identity
from tests.world import World, context

D = date
MRR = (
    "SELECT currency, country, active_plans, customers, round(mrr, 2) FROM revenue.mrr_by_country"
    " WHERE month = :month ORDER BY 1, 2"
)
BEGAN = (
    "SELECT country, kind, plans, net_amount FROM revenue.activations_by_country"
    " WHERE month = :month ORDER BY 1, 2"
)


def test_countries_stay_apart(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2026, 3, 1), "10.00", country="DE"),
            Term(D(2026, 3, 5), "240.00", 12, customer=2, country="DE"),
            weekly(D(2026, 3, 27), customer=3, country="JP"),
            Term(D(2026, 3, 7), "9.00", customer=4, country="US", kind="reactivation"),
            Term(D(2026, 3, 7), "7.00", customer=5, country=None),
        ],
    )
    publish(engine, "2026-03", "2026-03")
    month = D(2026, 3, 1)
    found = [(c, plans, n, str(mrr)) for _, c, plans, n, mrr in rows(engine, MRR, month=month)]
    assert found == [
        ("", 1, 1, "7.00"),
        ("DE", 2, 2, "30.00"),
        ("JP", 1, 1, "43.48"),
        ("US", 1, 1, "9.00"),
    ]
    assert [(c, k, n, str(net)) for c, k, n, net in rows(engine, BEGAN, month=month)] == [
        ("", "new", 1, "7.00"),
        ("DE", "new", 2, "250.00"),
        ("JP", "new", 1, "10.00"),
        ("US", "reactivation", 1, "9.00"),
    ]


def test_a_customer_who_moves_moves_no_revenue(engine: Engine) -> None:
    """From one country to the other: no churn and nothing new, the customer pays the same."""
    insert(
        engine,
        [Term(D(2026, 3, 5), country="DE"), Term(D(2026, 4, 5), country="AT", kind="renewal")],
    )
    publish(engine, "2026-02", "2026-05")
    assert rows(engine, MRR, month=D(2026, 3, 1)) == [("USD", "DE", 1, 1, 10)]
    assert rows(engine, MRR, month=D(2026, 4, 1)) == [("USD", "AT", 1, 1, 10)]
    assert rows(engine, MRR, month=D(2026, 5, 1)) == []
    assert history.movements(engine, "2026-04") == {}
    assert history.movements(engine, "2026-05") == {"churn": (1, -10)}


def test_a_customer_with_terms_of_two_countries_is_in_both(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2026, 3, 5), months=3, price="30.00", country="DE"),
            Term(D(2026, 4, 5), "5.00", country="AT"),
        ],
    )
    publish(engine, "2026-03", "2026-04")
    assert rows(engine, MRR, month=D(2026, 4, 1)) == [
        ("USD", "AT", 1, 1, 5),
        ("USD", "DE", 1, 1, 10),
    ]
    ((customers,),) = rows(
        engine, "SELECT closing_customers FROM revenue.mrr_bridge WHERE month = '2026-04-01'"
    )
    assert customers == 1


def test_a_free_plan_is_active_and_makes_no_customer(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5), "0.00", country="DE")])
    publish(engine, "2026-03", "2026-03")
    assert rows(engine, MRR, month=D(2026, 3, 1)) == [("USD", "DE", 1, 0, 0)]


def test_a_term_keeps_the_country_it_was_invoiced_for(world: World) -> None:
    """A customer who moves later changes no closed month."""
    world.tax_rate("0", country="DE")
    world.tax_rate("0", country="AT")
    customer = world.customer(country="DE")
    world.subscription(customer, world.plan(), started_on=D(2026, 11, 2))
    world.pay_and_approve(*world.open())
    world.settle()
    world.sql("UPDATE prepaid.customers SET country = 'AT'")
    publish(world.engine, "2026-11", "2026-11", context().as_of)
    assert rows(world.engine, MRR, month=D(2026, 11, 1)) == [("USD", "DE", 1, 1, 10)]


@pytest.fixture
def shared_engine(module_world: World) -> Engine:
    return module_world.engine


COUNTRIES = st.lists(st.sampled_from(["DE", "AT", None]), min_size=12, max_size=12)


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(terms=TERMS, countries=COUNTRIES, first=st.integers(0, 6), cut=st.integers(0, 30))
def test_against_plain_counting(
    shared_engine: Engine, terms: list[Term], countries: list[str | None], first: int, cut: int
) -> None:
    terms = [replace(term, country=c) for term, c in zip(terms, countries, strict=False)]
    last = MONTHS - 1
    month = D(FIRST.year + last // 12, 1 + last % 12, 1)
    # The last month may be the running one, on any of its days.
    as_of = min(month.replace(day=1 + cut % 28), last_day(month))
    known = [term for term in terms if term.activated and term.activated <= as_of]
    history.clear(shared_engine)
    insert(shared_engine, terms)
    begin = D(FIRST.year, FIRST.month + first, 1)
    publish(shared_engine, f"{begin:%Y-%m}", f"{month:%Y-%m}", as_of)

    months = [m for (m,) in rows(shared_engine, "SELECT month FROM revenue.months ORDER BY 1")]
    assert len(months) == MONTHS - first
    for shown in months:
        day = min(as_of, last_day(shown))
        found = rows(
            shared_engine,
            "SELECT currency, country, active_plans, customers, mrr"
            " FROM revenue.mrr_by_country WHERE month = :month",
            month=shown,
        )
        expected = counted(known, day)
        assert {(c, k): n for c, k, *n, _ in found} == {k: v[:2] for k, v in expected.items()}
        for currency, country, _, _, amount in found:
            assert abs(Fraction(amount) - expected[currency, country][2]) < Fraction(1, 10**9)
    began = rows(
        shared_engine,
        "SELECT to_char(month, 'YYYY-MM'), currency, country, kind, plans"
        " FROM revenue.activations_by_country",
    )
    assert {tuple(key): n for *key, n in began} == counted_activations(known, begin)
    assert_identity(shared_engine)


def counted(terms: list[Term], day: date) -> dict[tuple[str, str], list[Any]]:
    """Currency and country -> active plans, customers with revenue, MRR; term by term."""
    active = [term for term in terms if term.start <= day < term.end_date]
    found: dict[tuple[str, str], list[Any]] = {}
    for key in {(term.currency, term.country or "") for term in active}:
        there = [term for term in active if (term.currency, term.country or "") == key]
        of_customer: dict[int, Fraction] = defaultdict(Fraction)
        for term in there:
            of_customer[term.customer] += term.monthly
        paying = sum(1 for amount in of_customer.values() if amount)
        found[key] = [len(there), paying, sum(of_customer.values(), Fraction(0))]
    return found


def counted_activations(terms: list[Term], begin: date) -> Counter[tuple[str, ...]]:
    days = [(max(term.start, term.activated or term.start), term) for term in terms]
    return Counter(
        (f"{day:%Y-%m}", term.currency, term.country or "", term.kind)
        for day, term in days
        if day >= begin
    )


def shown(engine: Engine, month: date) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return collect(connection, month, month)[month]


def test_as_shown_they_add_up(engine: Engine) -> None:
    """Three thirds of a cent each: the largest country first, ties by code."""
    insert(
        engine,
        [
            Term(D(2026, 3, 1), "100.00", 3, customer=n, country=country)
            for n, country in enumerate(("SE", "DE", None))
        ],
    )
    insert(engine, [weekly(D(2026, 3, 3), customer=9, country="JP")])
    publish(engine, "2026-03", "2026-03")
    (figures,) = shown(engine, D(2026, 3, 1))
    assert figures["mrr"] == "100.00"
    assert [(c["country"], c["mrr"], c["customers"]) for c in figures["countries"]] == [
        ("", "33.34", 1),
        ("DE", "33.33", 1),
        ("SE", "33.33", 1),
        ("JP", "0.00", 0),
    ]
    assert figures["countries"][3]["kinds"]["new"] == {"plans": 1, "net_amount": "10.00"}
    assert figures["countries"][3]["active_plans"] == 0
    assert (figures["arr"], figures["average_per_customer"]) == ("1200.00", "33.33")


def test_arr_is_made_from_the_unrounded_amount(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 15), "18.29", 12)])
    publish(engine, "2026-03", "2026-04")
    (figures,) = shown(engine, D(2026, 3, 1))
    assert (figures["mrr"], figures["arr"]) == ("1.52", "18.29")


def test_without_customers_there_is_no_average(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 15), "0.00")])
    publish(engine, "2026-03", "2026-03")
    (figures,) = shown(engine, D(2026, 3, 1))
    assert (figures["arr"], figures["average_per_customer"]) == ("0.00", None)


def test_what_an_older_release_did_not_tell_has_not_changed(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 15), country="DE")])
    publish(engine, "2026-03", "2026-03")
    now = shown(engine, D(2026, 3, 1))
    unknown = ("countries", "arr", "average_per_customer")
    older = [{key: value for key, value in now[0].items() if key not in unknown}]
    assert same(older, now)
    assert same(now, now)
    assert not same([{**older[0], "mrr": "9.00"}], now)
    assert not same(now, [{**now[0], "countries": []}])
    assert not same(now, [])


def test_lines_in_other_words_have_not_changed(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 15))])
    publish(engine, "2026-03", "2026-03")
    (now,) = shown(engine, D(2026, 3, 1))
    lines = now["reconciliation"]
    assert same([{**now, "reconciliation": [{**line, "why": "earlier"} for line in lines]}], [now])
    assert not same([{**now, "reconciliation": lines[1:]}], [now])


def test_a_month_of_an_older_release_has_no_countries(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 15), country="DE")])
    publish(engine, "2026-03", "2026-03")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM revenue.mrr_by_country")
        connection.exec_driver_sql("DELETE FROM revenue.activations_by_country")
    assert shown(engine, D(2026, 3, 1))[0]["countries"] is None
