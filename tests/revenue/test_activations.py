"""Plans that began: by month, currency, plan and kind."""

from datetime import date
from decimal import Decimal

from sqlalchemy import Engine

from prepaid_pipeline.revenue import figures
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.rules import KINDS
from tests.revenue.history import RUN, Term, insert, publish, rows

D = date


def activations(engine: Engine) -> list[tuple[object, ...]]:
    return rows(
        engine,
        "SELECT to_char(month, 'YYYY-MM'), currency, plan_code, kind, plans, net_amount"
        " FROM revenue.plan_activations ORDER BY 1, 2, 3, 4",
    )


def test_by_kind_plan_and_currency(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2026, 3, 1), kind="new"),
            Term(D(2026, 3, 9), "20.00", kind="renewal", customer=2),
            Term(D(2026, 3, 31), "30.00", kind="renewal", customer=3, status="Expired"),
            Term(D(2026, 3, 9), "90.00", 3, kind="reactivation", customer=4),
            Term(D(2026, 3, 9), "7.00", kind="new", customer=5, currency="EUR"),
            Term(D(2026, 3, 9), kind="renewal", customer=6, status="Pending"),
            Term(D(2026, 3, 20), "40.00", kind="change", customer=7),
        ],
    )
    publish(engine, "2026-03", "2026-03")
    assert activations(engine) == [
        ("2026-03", "EUR", "P1M0D", "new", 1, Decimal("7.00")),
        ("2026-03", "USD", "P1M0D", "change", 1, Decimal("40.00")),
        ("2026-03", "USD", "P1M0D", "new", 1, Decimal("10.00")),
        ("2026-03", "USD", "P1M0D", "renewal", 2, Decimal("50.00")),
        ("2026-03", "USD", "P3M0D", "reactivation", 1, Decimal("90.00")),
    ]


def test_the_later_of_start_and_activation_counts(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2026, 3, 30), activated_on=D(2026, 4, 2), kind="renewal"),
            Term(D(2026, 4, 5), activated_on=D(2026, 3, 30), kind="renewal", customer=2),
        ],
    )
    publish(engine, "2026-03", "2026-04")
    assert activations(engine) == [("2026-04", "USD", "P1M0D", "renewal", 2, Decimal("20.00"))]


def test_the_net_amount_is_the_whole_term_with_one_time_fees(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 1), "120.00", 12, one_time="15.00")])
    publish(engine, "2026-03", "2026-03")
    assert activations(engine)[0][-1] == Decimal("135.00")
    ((amount,),) = rows(engine, "SELECT mrr FROM revenue.mrr")
    assert amount == 10


def test_all_kinds_together_are_all_plans_that_began(engine: Engine) -> None:
    terms = [Term(D(2025, 1 + n % 12, 1 + n), customer=n, kind=KINDS[n % 4]) for n in range(28)]
    insert(engine, terms)
    publish(engine, "2025-01", "2025-12")
    ((plans,),) = rows(engine, "SELECT sum(plans) FROM revenue.plan_activations")
    assert plans == len(terms)


def test_a_term_that_was_cut_counts_with_its_whole_amount(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2026, 3, 1), "120.00", 12, end=D(2026, 3, 20)),
            Term(D(2026, 3, 20), "240.00", 12, kind="change"),
            Term(D(2026, 3, 5), "60.00", 12, end=D(2026, 4, 2), status="Cancelled", customer=2),
            Term(D(2026, 3, 9), "7.00", end=D(2026, 3, 9), status="Cancelled", customer=3),
        ],
    )
    publish(engine, "2026-03", "2026-03")
    assert activations(engine) == [
        ("2026-03", "USD", "P12M0D", "change", 1, Decimal("240.00")),
        ("2026-03", "USD", "P12M0D", "new", 2, Decimal("180.00")),
        ("2026-03", "USD", "P1M0D", "new", 1, Decimal("7.00")),
    ]


def test_what_was_cancelled_before_it_began_never_began(engine: Engine) -> None:
    paid_early = {"activated_on": D(2026, 3, 1), "kind": "renewal", "status": "Cancelled"}
    insert(
        engine,
        [
            Term(D(2026, 3, 9), end=D(2026, 3, 9), **paid_early),
            Term(D(2026, 3, 9), end=D(2026, 3, 10), customer=2, **paid_early),
        ],
    )
    publish(engine, "2026-03", "2026-03")
    assert activations(engine) == [("2026-03", "USD", "P1M0D", "renewal", 1, Decimal("10.00"))]


def test_terms_that_were_cut_agree_with_the_control(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2026, 3, 1), "120.00", 12, end=D(2026, 3, 20)),
            Term(D(2026, 3, 20), "240.00", 12, kind="change"),
            Term(D(2026, 3, 9), end=D(2026, 3, 9), status="Cancelled", customer=2),
            Term(
                D(2026, 3, 9),
                end=D(2026, 3, 9),
                status="Cancelled",
                customer=3,
                activated_on=D(2026, 3, 1),
            ),
            Term(D(2026, 2, 20), end=D(2026, 3, 31), months=3, status="Cancelled", customer=4),
        ],
    )
    month = D(2026, 3, 1)
    figures.stage(engine, Span(month, month, D(2026, 3, 31)), RUN)
    control = "SELECT active_plans, mrr, activations FROM revenue.control_staging"
    assert rows(engine, control) == [(1, 20, 3)]
    assert rows(engine, "SELECT sum(active_plans), sum(mrr) FROM revenue.mrr_staging") == [(1, 20)]
    assert rows(engine, "SELECT sum(plans) FROM revenue.plan_activations_staging") == [(3,)]
