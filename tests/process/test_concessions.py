"""Giving away needs a signature: who may set a price below the list, and what waits for finance."""

from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from prepaid_pipeline.billing import invoices, subscriptions
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process.due import due
from tests.world import TODAY, World, context


class Shop:
    """A world with a price list, one person of customer success and two of finance."""

    def __init__(self, world: World) -> None:
        self.world, self.engine = world, world.engine
        world.tax_rate("0.10")
        self.plans = {"basic": world.plan("10.00"), "pro": world.plan("25.00")}
        self.codes = {
            name: world.sql("SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=plan)
            for name, plan in self.plans.items()
        }
        self.care = world.officer("concession_care", "customer_success")
        self.ann = world.officer("concession_ann", "finance")
        self.bob = world.officer("concession_bob", "finance")

    def subscription(self, price: str | None = None, quantity: int = 1) -> int:
        """A running subscription whose term ends today; ``price``: its own, imported."""
        world = self.world
        made = world.subscription(
            world.customer(), self.plans["basic"], date(2026, 10, 2), price=price
        )
        if quantity > 1:
            world.sql(
                "UPDATE prepaid.subscriptions SET quantity = :q WHERE subscription_id = :s",
                q=quantity,
                s=made,
            )
        world.term(made, date(2026, 10, 2), TODAY)
        return int(made)

    def change(
        self, subscription: int, price: str | None, plan: str = "basic", who: str | None = None
    ) -> None:
        asked = subscriptions.Change(self.codes[plan], Decimal(price) if price else None)
        named = subscriptions.Named(subscription, None)
        subscriptions.change(
            self.engine, who or self.care, named, asked, "keeps the customer", as_of=TODAY
        )

    def plan(self, subscription: int) -> int:
        """Its newest plan, opened if it was not."""
        self.world.open()
        return int(
            self.world.sql(
                "SELECT max(service_plan_id) FROM prepaid.service_plans WHERE subscription_id = :s",
                s=subscription,
            )
        )

    def waits(self, plan: int) -> bool:
        """Held for finance, without an invoice, with one open task."""
        held = self.world.holds(plan) == ["price_concession"]
        assert (self.world.task(plan, "price_concession") is not None) >= held
        assert (self.world.invoice(plan) is None) is held
        return held

    def decide(self, plan: int, word: str = "approve", who: str | None = None) -> None:
        task = self.world.task(plan, "price_concession")
        decisions.decide(self.engine, who or self.ann, [task], word, "seen", TODAY)

    def findings(self) -> list[str]:
        return [line for check in invariants.run(self.engine, context()) for line in check.findings]


@pytest.fixture(scope="module")
def shop(module_world: World) -> Shop:
    return Shop(module_world)


@pytest.fixture
def percent(shop: Shop) -> Iterator[Callable[[str], None]]:
    """Sets by how many per cent the list may be undercut."""
    write = "UPDATE prepaid.installation SET {}"
    yield lambda value: shop.world.sql(write.format(f"concession_percent = {value}"))
    shop.world.sql(write.format("concession_percent = 0, imported_concessions_wait = false"))


def test_customer_success_alone_gives_nothing_away(shop: Shop) -> None:
    """Price 0 does not become Active before finance has signed; then it needs no payment."""
    world, subscription = shop.world, shop.subscription()
    shop.change(subscription, "0")
    plan = shop.plan(subscription)
    world.settle()
    assert shop.waits(plan)
    assert world.status(plan) == "Processing"
    assert shop.findings() == []
    ((held, shown),) = world.rows(
        "SELECT h.text, c.asked_by || ': ' || c.asked_why FROM prepaid.held_plans h"
        " JOIN prepaid.price_concessions c USING (service_plan_id) WHERE service_plan_id = :p",
        p=plan,
    )
    assert held == (
        "Finance is asked about its price, 0.00 USD instead of 10.00: its own price is 0.00, the list"
        " price 10.00; nothing is left to pay. It continues when finance approves the task."
    )
    assert shown == f"{shop.care}: keeps the customer"
    with pytest.raises(NotAllowed, match="belongs to finance"):
        shop.decide(plan, who=shop.care)
    with pytest.raises(NotAllowed, match="waits for finance to decide about its price"):
        decisions.release(shop.engine, shop.ann, plan, "let it through")
    shop.decide(plan)
    world.open()
    world.settle()
    assert world.status(plan) == "Active"
    assert shop.findings() == []


def test_an_invoice_over_0_waits_at_step_6_too(shop: Shop) -> None:
    """One that an earlier release has issued: the gate of step 7 has it as well."""
    world, subscription = shop.world, shop.subscription()
    shop.change(subscription, "0")
    plan = shop.plan(subscription)
    world.sql("DELETE FROM prepaid.tasks WHERE service_plan_id = :p", p=plan)
    world.sql(
        "UPDATE prepaid.holds SET released_at = now(), released_by = 'x' WHERE service_plan_id = :p",
        p=plan,
    )
    with shop.engine.begin() as connection:
        kept = connection.execute(
            text("SELECT pg_get_functiondef('prepaid.hold_concessions'::regproc)")
        ).scalar_one()
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION prepaid.hold_concessions(plans bigint[], opened date)"
            " RETURNS void LANGUAGE sql AS ''"
        )
    world.open()
    with shop.engine.begin() as connection:
        connection.exec_driver_sql(kept.replace("%", "%%"))
    number = world.invoice(plan)
    with pytest.raises(Exception, match=f"invoice {number} cannot be Paid: nobody in finance"):
        world.sql(
            "UPDATE prepaid.invoices SET status = 'Paid', paid_on = :d WHERE invoice_number = :n",
            d=TODAY,
            n=number,
        )
    world.settle()
    assert world.holds(plan) == ["price_concession"]
    shop.decide(plan)
    world.settle()
    assert world.status(plan) == "Active"


@pytest.mark.parametrize(
    ("limit", "price", "waits"),
    [
        ("0", "9.99", True),
        ("0", "10.00", False),
        ("0", "11.00", False),
        ("10", "9.00", False),
        ("10", "8.99", True),
        ("12.5", "8.75", False),
        ("100", "0.01", False),
        ("100", "0", True),
    ],
)
def test_the_limit(
    shop: Shop, percent: Callable[[str], None], limit: str, price: str, waits: bool
) -> None:
    """Nothing to pay needs finance whatever the limit."""
    percent(limit)
    subscription = shop.subscription()
    shop.change(subscription, price)
    assert shop.waits(shop.plan(subscription)) is waits


def test_a_price_list_that_includes_tax_is_compared_without_it(shop: Shop) -> None:
    with_tax = shop.world.plan("11.00", includes_tax=True)
    code = shop.world.sql("SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=with_tax)
    for price, waits in (("10.00", False), ("9.99", True)):
        subscription = shop.subscription()
        shop.codes["taxed"] = code
        shop.change(subscription, price, "taxed")
        assert shop.waits(shop.plan(subscription)) is waits


def test_without_a_list_price_there_is_no_concession(shop: Shop) -> None:
    unlisted = shop.world.plan(None)
    shop.codes["own"] = shop.world.sql(
        "SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=unlisted
    )
    subscription = shop.subscription()
    shop.change(subscription, "0.01", "own")
    assert not shop.waits(shop.plan(subscription))


def test_imported_prices_are_agreed_or_wait(shop: Shop, percent: Callable[[str], None]) -> None:
    """Agreed by default, and named by check; with the setting they wait as well."""
    agreed = shop.subscription(price="4.00")
    assert not shop.waits(shop.plan(agreed))
    ref = shop.world.sql(
        "SELECT subscription_ref FROM prepaid.subscriptions WHERE subscription_id = :s", s=agreed
    )
    (noted,) = invariants.notices(shop.engine, context())
    said = f"subscription {ref}: its own price 4.00 USD is 60.0 % below the list price of"
    assert any(line.startswith(said) for line in noted.findings), noted
    assert shop.findings() == []
    shop.world.sql("UPDATE prepaid.installation SET imported_concessions_wait = true")
    for waiting in (shop.subscription(price="4.00"), shop.subscription(price="0.00")):
        assert shop.waits(shop.plan(waiting))
    shop.world.sql("UPDATE prepaid.installation SET imported_concessions_wait = false")


def test_what_was_imported_stays_agreed_when_a_change_is_taken_back(shop: Shop) -> None:
    subscription = shop.subscription(price="4.00")
    shop.change(subscription, None, "pro")
    shop.change(subscription, "4.00")
    # Now it is the person's: the same price, asked for here.
    assert shop.waits(shop.plan(subscription))
    other = shop.subscription(price="4.00")
    shop.change(other, None, "pro")
    shop.world.sql(
        "UPDATE prepaid.subscriptions s SET plan_id = :p, price = 4 WHERE subscription_id = :s",
        p=shop.plans["basic"],
        s=other,
    )
    assert not shop.waits(shop.plan(other))


def discount(shop: Shop, subscription: int, who: str | None, **given: str) -> None:
    """By a person, or imported."""
    with shop.engine.begin() as connection:
        connection.execute(
            text("SELECT set_config('prepaid.actor', :who, true)"), {"who": who or "import"}
        )
        connection.execute(
            text(
                "INSERT INTO prepaid.discounts (subscription_id, discount_code, name, percent, amount)"
                " VALUES (:s, 'gift', 'Gift', CAST(:percent AS numeric), CAST(:amount AS numeric))"
            ),
            {"s": subscription, "percent": None, "amount": None} | given,
        )


@pytest.mark.parametrize("given", [{"percent": "100"}, {"amount": "99.00"}])
def test_a_whole_discount(shop: Shop, given: dict[str, str]) -> None:
    """A person's needs finance; an imported one counts as agreed, and needs no payment."""
    mine, imported = shop.subscription(), shop.subscription()
    discount(shop, mine, shop.care, **given)
    discount(shop, imported, None, **given)
    assert shop.waits(shop.plan(mine))
    plan = shop.plan(imported)
    assert not shop.waits(plan)
    shop.world.settle()
    assert shop.world.status(plan) == "Active"


def test_approved_once_it_holds_for_later_terms_and_no_more(shop: Shop) -> None:
    """The next term at that price is not asked about; a lower price or more units are."""
    world, subscription = shop.world, shop.subscription()
    shop.change(subscription, "5.00")
    plan = shop.plan(subscription)
    shop.decide(plan)
    world.open()
    world.pay_and_approve(plan)
    world.settle()
    assert world.status(plan) == "Active"
    later = context(date(2026, 12, 1))
    world.open(later)
    following = world.sql(
        "SELECT max(service_plan_id) FROM prepaid.service_plans WHERE subscription_id = :s",
        s=subscription,
    )
    assert following > plan
    assert not shop.waits(following)
    invoices.void(
        shop.engine, shop.ann, world.invoice(following), "cheaper", reissue=True, as_of=TODAY
    )
    shop.change(subscription, "4.00")
    world.open(later)
    assert shop.waits(following)


def test_a_rejected_price_waits_until_it_is_changed(shop: Shop) -> None:
    world, subscription = shop.world, shop.subscription()
    shop.change(subscription, "1.00")
    plan = shop.plan(subscription)
    shop.decide(plan, "reject")
    world.open()
    assert shop.waits(plan)
    assert shop.findings() == []
    # Released without a change it is asked about again.
    decisions.release(shop.engine, shop.bob, plan, "look again")
    world.open()
    assert shop.waits(plan)
    assert (
        world.sql(
            "SELECT status FROM prepaid.tasks WHERE task_id = :t",
            t=world.task(plan, "price_concession"),
        )
        == "Open"
    )
    # At the list price finance need not decide.
    shop.change(subscription, "10.00")
    assert world.task(plan, "price_concession") is None
    world.open()
    assert not shop.waits(plan)
    assert world.sql("SELECT total FROM prepaid.invoices WHERE service_plan_id = :p", p=plan) == 11


def test_cancelling_takes_the_question_back(shop: Shop) -> None:
    subscription = shop.subscription()
    shop.change(subscription, "1.00")
    plan = shop.plan(subscription)
    shop.world.cancel(plan)
    assert shop.world.task(plan, "price_concession") is None
    assert shop.findings() == []


def test_four_eyes_on_prices(shop: Shop) -> None:
    """Who asked for the price does not approve it, before or after; who approved it may verify the
    payment, and who assigned the payment has had no hand in the price.
    """
    world, subscription = shop.world, shop.subscription()
    shop.change(subscription, "1.00", who=shop.ann)
    plan = shop.plan(subscription)
    with pytest.raises(
        NotAllowed, match=f"{shop.ann} last changed the subscription: somebody else"
    ):
        shop.decide(plan)
    shop.decide(plan, who=shop.bob)
    world.open()
    world.pay(plan)
    decisions.decide(shop.engine, shop.bob, [world.task(plan)], "approve", "seen", TODAY)
    world.settle()
    assert world.status(plan) == "Active"

    after = shop.subscription()
    shop.change(after, "1.00")
    plan = shop.plan(after)
    shop.decide(plan, who=shop.ann)
    discount(shop, after, shop.ann, percent="5")
    with shop.engine.begin() as connection:
        connection.execute(text("SELECT prepaid.withdraw_own_approvals(ARRAY[:p])"), {"p": plan})
    assert shop.waits(plan)


def test_two_people_above_the_limit(shop: Shop) -> None:
    """What is given away counts, not what is paid."""
    shop.world.sql("INSERT INTO prepaid.approval_limits VALUES ('USD', 5)")
    try:
        subscription = shop.subscription()
        shop.change(subscription, "4.00")
        plan = shop.plan(subscription)
        shop.decide(plan, who=shop.ann)
        assert shop.waits(plan)
        with pytest.raises(NotAllowed, match="as the first of two"):
            shop.decide(plan, who=shop.ann)
        shop.decide(plan, who=shop.bob)
        shop.world.open()
        assert not shop.waits(plan)
    finally:
        shop.world.sql("DELETE FROM prepaid.approval_limits")


def test_due_names_them(shop: Shop) -> None:
    subscription = shop.subscription()
    shop.change(subscription, "2.00")
    held: list[dict[str, Any]] = due(shop.engine, context()).held
    assert any(row["reason_code"] == "price_concession" for row in held)
    assert shop.waits(shop.plan(subscription))
