"""MRR by worked examples, with their sources; ours where none is named.

The weekly rule is ours: 365.25 / 12 / 7 weeks a month. (Others count 4 or 4.33, or 30 days.)
"""

from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import Engine

from tests.revenue.history import Term, insert, mrr, publish, rows, weekly

D = date


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        # Stripe Support, "Calculating Monthly Recurring Revenue (MRR) in Billing".
        pytest.param([Term(D(2026, 3, 1), "1200.00", 12)], "100.00", id="1,200 a year"),
        # ChartMogul Help, article 201244842: yearly plans for 2,000, divided by 12.
        pytest.param([Term(D(2026, 3, 1), "2000.00", 12)], "166.67", id="2,000 a year"),
        pytest.param(
            [Term(D(2026, 3, 1), "500.00", 12) for _ in range(4)],
            "166.67",
            id="four of 500 a year, of one customer",
        ),
        pytest.param(
            [Term(D(2026, 3, 1), "2000.00", 12, customer=n) for n in range(4)],
            "666.67",
            id="four of them together, rounded once",
        ),
        pytest.param(
            [Term(D(2026, 3, 1), "100.00", customer=n) for n in range(100)]
            + [Term(D(2026, 3, 1), "600.00", 12, customer=n) for n in range(100, 150)],
            "12500.00",
            id="100 monthly of 100.00 and 50 yearly of 600.00",
        ),
        # ChartMogul Help, article 203299812: five at 5, then two more at 30.
        pytest.param(
            [Term(D(2026, 3, 1), "5.00", customer=n) for n in range(5)],
            "25.00",
            id="five customers at 5",
        ),
        pytest.param(
            [Term(D(2026, 3, 1), "5.00", customer=n) for n in range(5)]
            + [Term(D(2026, 3, 9), "30.00", customer=n) for n in (5, 6)],
            "85.00",
            id="and two more at 30",
        ),
        pytest.param(
            [weekly(D(2026, 3, 27), customer=n) for n in (1, 2)],
            "86.96",
            id="two weekly plans of 10.00",
        ),
        pytest.param([Term(D(2026, 3, 15), "0.00")], "0.00", id="free"),
    ],
)
def test_worked_examples(engine: Engine, terms: list[Term], expected: str) -> None:
    insert(engine, terms)
    publish(engine, "2026-03", "2026-03")
    assert mrr(engine, "2026-03") == (len(terms), Decimal(expected))


# Kill Bill's analytics plugin, test TestBusinessSubscription: prices a year and MRR to 4 decimals.
YEARLY = {
    "18.29": "1.5242",
    "19.95": "1.6625",
    "29.95": "2.4958",
    "49.00": "4.0833",
    "59.00": "4.9167",
    "149.95": "12.4958",
    "159.95": "13.3292",
    "169.95": "14.1625",
    "183.29": "15.2742",
    "199.95": "16.6625",
    "219.95": "18.3292",
    "239.90": "19.9917",
    "249.95": "20.8292",
    "319.00": "26.5833",
    "349.95": "29.1625",
    "399.00": "33.2500",
    "399.95": "33.3292",
    "458.29": "38.1908",
    "499.95": "41.6625",
    "549.95": "45.8292",
    "599.90": "49.9917",
    "599.95": "49.9958",
    "624.95": "52.0792",
    "799.00": "66.5833",
    "999.00": "83.2500",
    "2299.00": "191.5833",
    "5499.00": "458.2500",
}


def test_amounts_are_not_rounded_inside(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 15), price, 12, customer=n) for n, price in enumerate(YEARLY)])
    publish(engine, "2026-03", "2026-03")
    found = rows(
        engine,
        "SELECT price::text, round(amount, 4)::text, amount"
        " FROM revenue.plans_behind_mrr('2026-03-01')"
        " JOIN prepaid.service_plans USING (service_plan_id)",
    )
    assert {price: shown for price, shown, _ in found} == YEARLY
    for price, _, amount in found:
        assert abs(amount - Decimal(price) / 12) < Decimal("1e-12")
    ((total,),) = rows(engine, "SELECT mrr FROM revenue.mrr")
    assert total == sum(amount for *_, amount in found)


@pytest.mark.parametrize(
    ("term", "months"),
    [
        pytest.param(Term(D(2026, 3, 1)), ["2026-03"], id="a calendar month"),
        pytest.param(Term(D(2026, 3, 31)), ["2026-03"], id="from the last day"),
        pytest.param(Term(D(2026, 3, 2)), ["2026-03"], id="ends on the 2nd"),
        pytest.param(weekly(D(2026, 3, 10)), [], id="starts and ends within a month"),
        pytest.param(weekly(D(2026, 3, 25)), ["2026-03"], id="ends on the 1st"),
        pytest.param(weekly(D(2026, 3, 24)), [], id="ends on the last day, which it does not have"),
        pytest.param(
            Term(D(2026, 2, 1), months=3), ["2026-02", "2026-03", "2026-04"], id="a quarter"
        ),
        pytest.param(Term(D(2026, 3, 1), status="Pending"), [], id="not activated"),
        pytest.param(Term(D(2026, 3, 1), status="Expired"), ["2026-03"], id="expired since"),
        pytest.param(
            Term(D(2026, 3, 1), status="Cancelled"),
            ["2026-03"],
            id="cancelled since: by dates, not by today's status",
        ),
    ],
)
def test_a_term_counts_on_the_last_day_of_the_month(
    engine: Engine, term: Term, months: list[str]
) -> None:
    insert(engine, [term])
    publish(engine, "2026-01", "2026-06")
    found = rows(engine, "SELECT to_char(month, 'YYYY-MM') FROM revenue.mrr ORDER BY 1")
    assert [month for (month,) in found] == months


@pytest.mark.parametrize(
    ("as_of", "plans"),
    [(9, 0), (10, 1), (16, 1), (17, 0), (30, 0)],
)
def test_the_running_month_is_measured_on_the_business_date(
    engine: Engine, as_of: int, plans: int
) -> None:
    insert(engine, [weekly(D(2026, 6, 10))])
    publish(engine, "2026-05", "2026-06", as_of=D(2026, 6, as_of))
    assert mrr(engine, "2026-06")[0] == plans


def test_what_was_activated_after_the_cut_off_is_not_known_yet(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 5, 20), activated_on=D(2026, 6, 3))])
    publish(engine, "2026-05", "2026-05", as_of=D(2026, 6, 2))
    assert mrr(engine, "2026-05")[0] == 0
    publish(engine, "2026-05", "2026-05", as_of=D(2026, 6, 3))
    assert mrr(engine, "2026-05")[0] == 1


def test_currencies_and_plans_stay_apart(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2026, 3, 1), "10.00"),
            Term(D(2026, 3, 1), "90.00", 3, customer=2),
            Term(D(2026, 3, 1), "1200", 12, customer=3, currency="JPY"),
        ],
    )
    publish(engine, "2026-03", "2026-03")
    found = rows(
        engine,
        "SELECT currency, plan_code, active_plans, round(mrr, 2) FROM revenue.mrr ORDER BY 1, 2",
    )
    assert found == [
        ("JPY", "P12M0D", 1, Decimal("100.00")),
        ("USD", "P1M0D", 1, Decimal("10.00")),
        ("USD", "P3M0D", 1, Decimal("30.00")),
    ]


def test_a_range_in_the_middle_of_history_knows_what_came_before(engine: Engine) -> None:
    insert(engine, [Term(D(2024, 1, 15), "1200.00", 36), Term(D(2025, 2, 1), customer=2)])
    publish(engine, "2026-05", "2026-06")
    assert mrr(engine, "2026-05") == mrr(engine, "2026-06") == (1, Decimal("33.33"))
