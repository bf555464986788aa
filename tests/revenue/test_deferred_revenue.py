"""Deferred revenue by worked examples, with their sources, and what must always hold."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from prepaid_pipeline.revenue.figures import Span, last_day, next_month
from tests.budget import examples
from tests.revenue import chains
from tests.revenue.chains import FIRST, MONTHS, Link, month_of
from tests.revenue.history import Term, insert, publish, rows
from tests.world import World

D = date
# Amounts of one term, by month: billed, recognised, closing.
Course = list[tuple[str, str, str, str]]


def course(engine: Engine, currency: str = "USD") -> list[tuple[Any, ...]]:
    return rows(
        engine,
        "SELECT to_char(month, 'YYYY-MM'), billed, recognised, refunded, closing"
        " FROM revenue.deferred_revenue WHERE currency = :currency ORDER BY month",
        currency=currency,
    )


def recognised(engine: Engine, currency: str = "USD") -> list[Decimal]:
    return [amount for _, _, amount, *_ in course(engine, currency)]


def amounts(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts]


@pytest.mark.parametrize(
    ("term", "months", "expected"),
    [
        # This product's own arithmetic; examples with other sources are in docs/revenue.md.
        pytest.param(
            Term(D(2026, 1, 15), "31.00"),
            ("2026-01", "2026-02"),
            ["17", "14"],
            id="over a month end",
        ),
        pytest.param(
            Term(D(2026, 3, 1), "31.00"),
            ("2026-03", "2026-03"),
            ["31.00"],
            id="a calendar month is one slice",
        ),
        pytest.param(
            Term(D(2024, 2, 1), "29.00"), ("2024-02", "2024-02"), ["29.00"], id="a leap February"
        ),
        pytest.param(
            Term(D(2026, 3, 28), "7.00", months=0, days=7),
            ("2026-03", "2026-04"),
            ["4.00", "3.00"],
            id="a week over a month end",
        ),
        pytest.param(
            Term(D(2026, 1, 16), "0.01"), ("2026-01", "2026-02"), ["0.01"], id="a cent, half up"
        ),
        pytest.param(
            Term(D(2026, 1, 2), "0.07", 12),
            ("2026-01", "2027-01"),
            ["0.01"] * 7,
            id="rounded up each month, but never more than there is",
        ),
        pytest.param(Term(D(2026, 1, 1), "0.00"), ("2026-01", "2026-01"), [], id="free"),
        pytest.param(
            Term(D(2026, 1, 10), "100", months=0, days=65, currency="JPY"),
            ("2026-01", "2026-03"),
            ["34", "43", "23"],
            id="no decimals",
        ),
        pytest.param(
            Term(D(2026, 1, 10), "100.000", months=0, days=65, currency="KWD"),
            ("2026-01", "2026-03"),
            ["33.846", "43.077", "23.077"],
            id="three decimals",
        ),
        pytest.param(
            Term(D(2026, 1, 15), "31.00", one_time="6.20"),
            ("2026-01", "2026-02"),
            ["20.40", "16.80"],
            id="one-time fees with the rest",
        ),
    ],
)
def test_worked_examples(
    engine: Engine, term: Term, months: tuple[str, str], expected: list[str]
) -> None:
    insert(engine, [term])
    publish(engine, *months)
    assert recognised(engine, term.currency) == amounts(*expected)


def test_two_year_terms_one_month_at_a_time(engine: Engine) -> None:
    """The balance of a month is what the months after it recognise, whichever range is computed."""
    insert(
        engine, [Term(D(2025, 1, 31), "99.99", 24), Term(D(2025, 1, 31), "99.99", 24, customer=2)]
    )
    publish(engine, "2025-01", "2027-01")
    whole = course(engine)
    assert sum(recognised(engine)) == Decimal("199.98")
    assert whole[-1][-1] == 0
    for n in range(24):
        month = f"{2025 + n // 12}-{n % 12 + 1:02}"
        publish(engine, month, month, D(2027, 1, 31))
    assert course(engine) == whole


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        pytest.param(
            Term(D(2026, 4, 10), "30.00", activated_on=D(2026, 3, 20)),
            [("2026-03", "30", "0", "30"), ("2026-04", "0", "21", "9"), ("2026-05", "0", "9", "0")],
            id="paid in advance: owed from the payment on",
        ),
        pytest.param(
            Term(D(2026, 3, 30), "31.00", activated_on=D(2026, 4, 3)),
            [("2026-04", "31", "31", "0")],
            id="paid late: what was served before is revenue with the payment",
        ),
        pytest.param(
            Term(D(2026, 3, 27), "31.00", activated_on=D(2026, 4, 3), days=31, months=0),
            [("2026-04", "31", "31", "0")],
            id="all of it within the month of the payment",
        ),
        pytest.param(
            Term(D(2026, 3, 30), "62.00", activated_on=D(2026, 4, 3), days=62, months=0),
            [("2026-04", "62", "32", "30"), ("2026-05", "0", "30", "0")],
            id="paid late, served on",
        ),
        pytest.param(Term(D(2026, 3, 1), "30.00", status="Pending"), [], id="not activated"),
        pytest.param(
            Term(D(2026, 4, 1), "30.00", status="Expired"),
            [("2026-04", "30", "30", "0")],
            id="expired since",
        ),
    ],
)
def test_money_counts_from_the_payment_and_revenue_from_the_service(
    engine: Engine, term: Term, expected: Course
) -> None:
    insert(engine, [term])
    publish(engine, "2026-03", "2026-06")
    assert [(month, b, r, c) for month, b, r, _, c in course(engine)] == [
        (month, *amounts(b, r, c)) for month, b, r, c in expected
    ]


@pytest.mark.parametrize(("day", "expected"), [(14, "0"), (15, "1"), (31, "17")])
def test_the_running_month_is_served_up_to_the_business_date(
    engine: Engine, day: int, expected: str
) -> None:
    insert(engine, [Term(D(2026, 1, 15), "31.00", activated_on=D(2026, 1, 2))])
    publish(engine, "2026-01", "2026-01", D(2026, 1, day))
    ((_, billed, served, _, closing),) = course(engine)
    assert (billed, served, closing) == (31, Decimal(expected), 31 - Decimal(expected))


def year(cut_to: date | None, credit: str = "0", credited_on: date | None = None) -> Link:
    """365.00 from 1 January 2026: a day is 1.00."""
    return Link(
        D(2026, 1, 1), 12, price="365.00", cut_to=cut_to, credit=credit, credited_on=credited_on
    )


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        pytest.param(
            year(D(2026, 3, 11), "296.00", D(2026, 3, 11)),
            [
                ("2026-01", "31", "0", "334"),
                ("2026-02", "28", "0", "306"),
                ("2026-03", "10", "296", "0"),
            ],
            id="cancelled at once",
        ),
        pytest.param(
            year(D(2026, 3, 11), "296.00", D(2026, 4, 2)),
            [
                ("2026-01", "31", "0", "334"),
                ("2026-02", "28", "0", "306"),
                ("2026-03", "10", "0", "296"),
                ("2026-04", "0", "296", "0"),
            ],
            id="owed until the credit note",
        ),
        pytest.param(
            year(D(2026, 3, 11), "296.00", D(2026, 2, 20)),
            [
                ("2026-01", "31", "0", "334"),
                ("2026-02", "28", "296", "10"),
                ("2026-03", "10", "0", "0"),
            ],
            id="changed in advance",
        ),
        pytest.param(
            year(D(2026, 2, 1), "300.00", D(2026, 2, 1)),
            [("2026-01", "65", "0", "300"), ("2026-02", "0", "300", "0")],
            id="less is credited than was not served: the rest is revenue",
        ),
        pytest.param(
            year(D(2026, 1, 1), "365.00", D(2026, 1, 1)),
            [("2026-01", "0", "365", "0")],
            id="cancelled on its first day",
        ),
        pytest.param(
            year(D(2026, 2, 15)),
            [("2026-01", "31", "0", "334"), ("2026-02", "334", "0", "0")],
            id="cut without credit",
        ),
        pytest.param(year(None, "5.00", D(2027, 1, 20)), None, id="credited after its end"),
    ],
)
def test_a_term_that_is_cut_or_credited(
    engine: Engine, link: Link, expected: list[tuple[str, str, str, str]] | None
) -> None:
    chains.insert(engine, [chains.Chain((link,))])
    publish(engine, "2026-01", "2027-02")
    found = [(month, r, out, c) for month, _, r, out, c in course(engine)]
    if expected is None:
        # Days that were given away: revenue is taken back with the credit note.
        assert found[-1] == ("2027-01", *amounts("-5", "5", "0"))
        assert sum(r for _, r, *_ in found) == 360
    else:
        assert found == [(month, *amounts(*rest)) for month, *rest in expected]
    assert rows(engine, "SELECT sum(owed) FROM revenue.terms_owed('2027-02-28', '2027-02-28')") in (
        [(None,)],
        [(0,)],
    )


def test_what_is_owed_plan_by_plan(engine: Engine) -> None:
    chains.insert(
        engine,
        [
            chains.Chain((year(D(2026, 3, 11), "296.00", D(2026, 4, 2)),)),
            chains.Chain((Link(D(2026, 3, 15), price="31.00"),), 2),
        ],
    )
    found = rows(
        engine,
        "SELECT service_plan_id, amount, recognised, refunded, owed"
        " FROM revenue.terms_owed('2026-03-31', '2026-05-01') ORDER BY 1",
    )
    assert found == [(1, 365, 69, 0, 296), (2, 31, 17, 0, 14)]


def months_of(link: Link) -> Iterator[tuple[date, int]]:
    """Each month that the whole term reaches into, with its days in it."""
    day = link.start
    while day < link.full_end:
        until = min(next_month(day), link.full_end)
        yield month_of(day), (until - day).days
        day = until


def served(link: Link, until: date, as_of: date) -> Fraction:
    """What is revenue of a term by the end of a day, in the currency's smallest unit."""
    net, credit = (int(text.replace(".", "")) for text in (link.price, link.credit))
    given = credit if link.credited_on and link.credited_on <= min(until, as_of) else 0
    if max(link.end - timedelta(days=1), link.start) <= until:
        return Fraction(net - (credit if link.cut_to else given))
    length, total = (link.full_end - link.start).days, 0
    for month, days in months_of(link):
        if month <= until:
            days = min(days, (until - max(month, link.start)).days + 1)
            total += (2 * net * max(days, 0) + length) // (2 * length)
    return Fraction(min(total, net - given))


def counted(
    given_chains: list[chains.Chain], month: date, as_of: date
) -> dict[str, list[Fraction]]:
    """Per currency: opening, billed, recognised, refunded, closing of the month, term by term."""
    until, before = min(last_day(month), as_of), month - timedelta(days=1)
    found: dict[str, list[Fraction]] = {}
    for chain, link in chains.known(given_chains, until):
        out = Fraction(link.credit) if link.credited_on else Fraction(0)
        was = link.activated <= before
        sides = []
        for day, is_there in ((before, was), (until, True)):
            gone = out if link.credited_on and link.credited_on <= min(day, as_of) else 0
            revenue = served(link, day, as_of) / 100 if is_there else 0
            sides.append((revenue, gone, Fraction(link.price) - revenue - gone if is_there else 0))
        (revenue, gone, owed), (revenue_now, gone_now, owed_now) = sides
        entry = found.setdefault(chain.currency, [Fraction(0)] * 5)
        moved = (
            owed,
            0 if was else Fraction(link.price),
            revenue_now - revenue,
            gone_now - gone,
            owed_now,
        )
        found[chain.currency] = [a + b for a, b in zip(entry, moved, strict=True)]
    return {currency: entry for currency, entry in found.items() if any(entry)}


@pytest.fixture
def shared_engine(module_world: World) -> Engine:
    return module_world.engine


@settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    given_chains=chains.chains(),
    begin=st.integers(0, MONTHS - 1),
    length=st.integers(0, 8),
    later=st.integers(-30, 20),
    split=st.integers(1, 8),
)
def test_against_plain_counting(
    shared_engine: Engine,
    given_chains: list[chains.Chain],
    begin: int,
    length: int,
    later: int,
    split: int,
) -> None:
    months = Span(FIRST, D(2025, 4, 1), D(2025, 5, 1)).months()
    first, last = begin, min(begin + length, MONTHS - 1)
    as_of = max(last_day(months[last]) + timedelta(days=later), months[last])
    chains.clear(shared_engine)
    chains.insert(shared_engine, given_chains)
    publish(shared_engine, f"{months[first]:%Y-%m}", f"{months[last]:%Y-%m}", as_of)
    select = (
        "SELECT month, currency, opening, billed, recognised, refunded, closing"
        " FROM revenue.deferred_revenue ORDER BY 1, 2"
    )
    whole = rows(shared_engine, select)
    for month in months[first : last + 1]:
        found = {
            currency: [Fraction(n) for n in numbers]
            for m, currency, *numbers in whole
            if m == month
        }
        assert found == counted(given_chains, month, as_of), month
    for opening, billed, revenue, refunded, closing in (row[2:] for row in whole):
        assert opening + billed - revenue - refunded == closing >= 0
    # In two ranges, the later one first: the same.
    middle = min(first + split, last)
    for one, two in ((middle, last), (first, middle)):
        publish(shared_engine, f"{months[one]:%Y-%m}", f"{months[two]:%Y-%m}", as_of)
    assert rows(shared_engine, select) == whole


@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(given_chains=chains.chains(), place=st.integers(0, MONTHS - 1))
def test_what_happens_later_changes_no_month_that_is_over(
    shared_engine: Engine, given_chains: list[chains.Chain], place: int
) -> None:
    """Cuts and credits of later months, and later terms, leave the month as it was."""
    month = Span(FIRST, D(2025, 4, 1), D(2025, 5, 1)).months()[place]
    over = last_day(month)
    select = "SELECT * FROM revenue.deferred_revenue ORDER BY 1, 2"
    shown = []
    for knows in (False, True):
        told = (
            given_chains
            if knows
            else [
                replace(
                    chain,
                    links=tuple(
                        link
                        if not link.cut_to or min(link.cut_to, link.credited_on or date.max) <= over
                        else replace(link, cut_to=None, credit="0", credited_on=None)
                        for link in chain.links
                        if link.activated <= over
                    ),
                )
                for chain in given_chains
            ]
        )
        chains.clear(shared_engine)
        chains.insert(shared_engine, [chain for chain in told if chain.links])
        publish(shared_engine, f"{month:%Y-%m}", f"{month:%Y-%m}", D(2026, 12, 31))
        shown.append(rows(shared_engine, select))
    assert shown[0] == shown[1]


DOCS = (Path(__file__).parents[2] / "docs" / "revenue.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(
    r"^\| ([\d.]+) \| ([A-Z]{3}) \| ([\d-]+) \| ([\d-]+) \| ([\d., ]+) \|", DOCS, re.MULTILINE
)


@pytest.mark.parametrize(("net", "currency", "start", "end", "slices"), EXAMPLES)
def test_documented_examples(
    engine: Engine, net: str, currency: str, start: str, end: str, slices: str
) -> None:
    first, last = date.fromisoformat(start), date.fromisoformat(end)
    insert(engine, [Term(first, net, months=0, days=(last - first).days, currency=currency)])
    publish(engine, start[:7], end[:7])
    assert recognised(engine, currency) == amounts(*slices.split(", "))


def test_the_examples_are_found() -> None:
    assert len(EXAMPLES) == 6
