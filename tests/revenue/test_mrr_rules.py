"""What counts as MRR: every case of the table in docs/revenue.md, as it happens in the process."""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from prepaid_pipeline.billing import subscriptions
from prepaid_pipeline.billing.subscriptions import Change, Named
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.revenue.history import Term, insert, mrr, publish, rows, weekly
from tests.world import TODAY, World, context

D = date
PAGE = Path(__file__).parents[2] / "docs" / "revenue.md"
WINTER = ("2026-10", "2026-11", "2026-12", "2027-01")


def counted(world: World, as_of: date | None = None) -> dict[str, tuple[int, str]]:
    """Month -> active plans and MRR, of the months that have any. A process that begins today."""
    publish(world.engine, WINTER[0], WINTER[-1], as_of or D(2027, 1, 31))
    found = {month: mrr(world.engine, month) for month in WINTER}
    return {month: (plans, f"{amount:.2f}") for month, (plans, amount) in found.items() if plans}


def bought(world: World, price: str = "10.00", months: int = 1) -> int:
    """A plan that was paid, approved and activated today."""
    (plan,) = waiting(world, price, months)
    world.pay_and_approve(plan)
    world.settle()
    assert world.status(plan) == "Active"
    return plan


def waiting(world: World, price: str = "10.00", months: int = 1, number: int = 1) -> list[int]:
    """Plans that are invoiced today, and wait for their payment."""
    if not world.rows("SELECT FROM prepaid.tax_rates"):
        world.tax_rate("0")
    for _ in range(number):
        world.subscription(world.customer(), world.plan(price, months=months))
    return world.open()[-number:]


def subscription_of(world: World, plan: int) -> Named:
    found = world.sql(
        "SELECT subscription_id FROM prepaid.service_plans WHERE service_plan_id = :p", p=plan
    )
    return Named(found, None)


def paid_in_advance(world: World) -> None:
    insert(world.engine, [Term(D(2026, 12, 10), activated_on=D(2026, 11, 20))])
    assert counted(world) == {"2026-12": (1, "10.00")}


def paid_late(world: World) -> None:
    insert(
        world.engine,
        [Term(D(2026, 10, 26)), Term(D(2026, 11, 26), kind="renewal", activated_on=D(2026, 12, 2))],
    )
    assert counted(world) == {
        month: (1, "10.00") for month in ("2026-10", "2026-11")
    }  # the second one from its start, not from the payment


def not_active_yet(world: World) -> None:
    _, unapproved, rejected = waiting(world, number=3)
    for plan in (unapproved, rejected):
        world.record(world.invoice(plan))
    world.match()
    world.approve(rejected, word="reject", note="not ours")
    steps.close_quality_checks(world.engine, context())
    assert world.holds(rejected) == ["payment_rejected"]
    assert counted(world) == {}


def held_after_activation(world: World) -> None:
    failed, refunded = bought(world), bought(world, "20.00")
    care = world.officer("rules_care", "customer_success")
    decisions.decide(
        world.engine, care, [world.task(failed, "quality_check")], "reject", "login fails"
    )
    steps.close_quality_checks(world.engine, context())
    take_back(world, refunded, "Refunded")
    assert world.holds(failed) + world.holds(refunded) == ["quality_failed", "payment_reversed"]
    assert counted(world) == {"2026-11": (2, "30.00")}


def take_back(world: World, plan: int, status: str) -> None:
    ref = world.sql(
        "SELECT t.provider_ref FROM prepaid.transactions t JOIN prepaid.invoices i"
        " ON i.transaction_id = t.transaction_id WHERE i.service_plan_id = :p",
        p=plan,
    )
    world.record(
        world.invoice(plan), status=status, provider_ref=ref, occurred_at="2026-11-05T10:00:00Z"
    )
    world.match(context(D(2026, 11, 5)))


def within_a_month(world: World) -> None:
    insert(world.engine, [weekly(D(2026, 11, 10)), Term(D(2026, 11, 10), days=30, months=0)])
    assert counted(world) == {"2026-11": (1, "10.15")}  # 10.00 x 365.25 / 12 / 30: the other one


def expired(world: World) -> None:
    insert(world.engine, [Term(D(2026, 10, 5), "30.00", 3, status="Expired")])
    assert counted(world) == dict.fromkeys(WINTER[:3], (1, "10.00"))


def cancelled_at_the_end(world: World) -> None:
    plan = bought(world, "30.00", 3)
    care = world.officer("rules_care", "customer_success")
    subscriptions.cancel(world.engine, care, subscription_of(world, plan), "moves", as_of=TODAY)
    assert counted(world) == dict.fromkeys(WINTER[1:], (1, "10.00"))


def cancelled_at_once(world: World) -> None:
    plan = bought(world, "30.00", 3)
    care = world.officer("rules_care", "customer_success")
    subscriptions.cancel(
        world.engine,
        care,
        subscription_of(world, plan),
        "moves",
        at_once=True,
        as_of=D(2026, 12, 12),
    )
    assert counted(world) == {"2026-11": (1, "10.00")}


def changed(world: World) -> None:
    plan = bought(world, "120.00", 12)
    dearer = world.plan("240.00", months=12)
    code = world.sql("SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=dearer)
    care, on = world.officer("rules_care", "customer_success"), D(2026, 12, 12)
    new = subscriptions.change(
        world.engine, care, subscription_of(world, plan), Change(code, on=on), "grows", as_of=on
    )
    assert new is not None
    world.open(context(on))
    world.pay_and_approve(new.service_plan_id)
    world.settle(context(on))
    assert counted(world) == {
        "2026-11": (1, "10.00"),
        "2026-12": (1, "20.00"),
        "2027-01": (1, "20.00"),
    }


def left_on_the_first_day(world: World) -> None:
    plan = bought(world, "30.00", 3)
    care = world.officer("rules_care", "customer_success")
    subscriptions.cancel(
        world.engine, care, subscription_of(world, plan), "a mistake", at_once=True, as_of=TODAY
    )
    assert world.rows("SELECT end_date - start_date FROM prepaid.service_plans") == [(0,)]
    assert counted(world) == {}


def paid_back(world: World) -> None:
    take_back(world, bought(world, "30.00", 3), "Chargeback")
    assert counted(world) == dict.fromkeys(WINTER[1:], (1, "10.00"))
    assert rows(world.engine, "SELECT kind, amount FROM revenue.payment_reversals") == [
        ("Chargeback", 30)
    ]


def free(world: World) -> None:
    (plan,) = waiting(world, "0.00")
    world.settle()
    assert world.status(plan) == "Active"
    assert counted(world) == {"2026-11": (1, "0.00")}


RULES: dict[str, Callable[[World], None]] = {
    "paid in advance, starts next month": paid_in_advance,
    "paid late, within the days of grace": paid_late,
    "waits for payment or sign-off, or held before activation": not_active_yet,
    "held after activation (a failed quality check, a refund to be looked at)": held_after_activation,
    "starts and ends within one month (a weekly plan)": within_a_month,
    "expired since": expired,
    "cancelled since, at the end of its term": cancelled_at_the_end,
    "cancelled at once, in the middle of its term": cancelled_at_once,
    "changed to another plan in its middle": changed,
    "cancelled or changed on its first day": left_on_the_first_day,
    "its payment was refunded or charged back": paid_back,
    "free of charge": free,
}


@pytest.mark.parametrize("case", RULES, ids=lambda case: RULES[case].__name__)
def test_a_case_of_the_table(world: World, case: str) -> None:
    RULES[case](world)


def test_every_case_of_the_table_is_tested() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("| case | what it does to MRR |\n|---|---|\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) == list(RULES)
