"""Leaving, changing and voiding at the very moment at which the pipeline works on the same plan."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest

from prepaid_pipeline.billing import invoices, subscriptions
from prepaid_pipeline.billing.subscriptions import Named
from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import transaction
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.process import steps
from tests import budget
from tests.billing.subscriptions.test_cancelling import active, cancel, sound, term
from tests.billing.subscriptions.test_changing import change
from tests.people.test_races import at_once, wait_until_somebody_waits
from tests.world import TODAY, World, context

Person = Callable[[World, str], str]
DAY = date(2026, 11, 12)
ROUNDS = budget.rounds(8)


@pytest.fixture(scope="module")
def world(module_world: World) -> World:
    module_world.tax_rate("0.0725")
    return module_world


@pytest.fixture(scope="module")
def officer(world: World, person: Person) -> str:
    return person(world, "finance")


def fresh(world: World, at: date = TODAY) -> int:
    """A purchase that is paid and approved, and waits for its settling alone."""
    known = set(world.plans())
    world.subscription(world.customer(), world.plan("30.00"), at)
    (plan,) = (p for p in world.open(context(at)) if p not in known)
    world.pay_and_approve(plan)
    return plan


def subscription_of(world: World, plan: int) -> int:
    return world.sql(
        "SELECT subscription_id FROM prepaid.service_plans WHERE service_plan_id = :p", p=plan
    )


def notes(world: World, plan: int) -> int:
    return world.sql("SELECT count(*) FROM prepaid.credit_notes WHERE service_plan_id = :p", p=plan)


def test_cancelling_at_once_while_it_is_settled(world: World, officer: str) -> None:
    """Cancelled before it begins, paid or not, or cut on its first day: never kept."""
    for _ in range(ROUNDS):
        plan = fresh(world)
        subscription = subscription_of(world, plan)
        settled, left = at_once(world.settle, lambda s=subscription: cancel(world, officer, s))
        assert settled is None
        assert not isinstance(left, Exception), left
        assert world.status(plan) == "Cancelled"
        # Whatever had been paid by then is credited; an invoice that had not been is void.
        status = world.sql("SELECT status FROM prepaid.invoices WHERE service_plan_id = :p", p=plan)
        assert (status, notes(world, plan)) in {("Paid", 1), ("Void", 0)}
        world.settle()
        assert world.status(plan) == "Cancelled"
    sound(world)


def test_cancelling_while_the_change_is_settled(world: World, officer: str) -> None:
    """Both cut the old term: it is cut once, credited once, and nobody waits for ever."""
    better = world.plan("60.00")
    for _ in range(ROUNDS):
        subscription, old = active(world, "30.00")
        waiting = change(world, officer, subscription, better)
        assert waiting is not None
        new = waiting.service_plan_id
        world.open(context(DAY))
        world.pay_and_approve(new)
        settled, left = at_once(
            lambda: world.settle(context(DAY)),
            lambda s=subscription: cancel(world, officer, s, as_of=DAY),
        )
        assert settled is None
        assert not isinstance(left, Exception), left
        assert term(world, old)[1:] == (DAY, date(2026, 12, 2))
        assert (world.status(new), notes(world, old)) == ("Cancelled", 1)
        sound(world, DAY)


def test_changing_while_the_renewal_is_opened(world: World, officer: str) -> None:
    """The change comes instead of the renewal, whichever is first."""
    better, ahead = world.plan("60.00"), context(date(2026, 11, 27))
    for _ in range(ROUNDS):
        subscription, _ = active(world, "30.00")
        opened, waiting = at_once(
            lambda: steps.open_service_plans(world.engine, ahead),
            lambda s=subscription: change(world, officer, s, better, ahead.as_of, ahead.as_of),
        )
        assert isinstance(opened, int)
        assert not isinstance(waiting, Exception), waiting
        assert world.rows(
            "SELECT kind, status FROM prepaid.service_plans WHERE subscription_id = :s"
            " AND status IN ('Pending', 'Processing')",
            s=subscription,
        ) == [("change", "Pending")]
        assert steps.open_service_plans(world.engine, ahead) == 0


def test_changing_while_the_renewal_is_being_inserted(world: World, officer: str) -> None:
    """The closest it can be: inserted, and not committed. The change waits, and then cancels it."""
    better, ahead = world.plan("60.00"), context(date(2026, 11, 27))
    subscription, _ = active(world, "30.00")
    (opening, _) = queries.script("steps/00_open_service_plans")
    bounds = {"first": subscription, "last": subscription}
    with ThreadPoolExecutor(1) as pool:
        with transaction(world.engine, actor="pipeline", as_of=ahead.as_of) as connection:
            assert opening.execute(connection, ahead.parameters() | bounds).rowcount == 1
            asked = pool.submit(
                change, world, officer, subscription, better, ahead.as_of, ahead.as_of
            )
            wait_until_somebody_waits(world)
        waiting = asked.result(timeout=20)
    assert waiting is not None
    assert world.rows(
        "SELECT kind, status FROM prepaid.service_plans WHERE subscription_id = :s"
        " AND activated_on IS NULL ORDER BY 1",
        s=subscription,
    ) == [("change", "Pending"), ("renewal", "Cancelled")]


def test_changing_while_the_renewal_is_settled(world: World, officer: str) -> None:
    """Refused, as the next term is paid; or the renewal is cancelled and its money credited."""
    better, ahead = world.plan("60.00"), context(date(2026, 11, 27))
    for _ in range(ROUNDS):
        subscription, _ = active(world, "30.00")
        known = set(world.plans())
        renewal = max(set(world.open(ahead)) - known)
        world.pay_and_approve(renewal)
        settled, asked = at_once(
            lambda: world.settle(ahead),
            lambda s=subscription: change(world, officer, s, better, ahead.as_of, ahead.as_of),
        )
        assert settled is None
        if isinstance(asked, Exception):
            assert isinstance(asked, NotAllowed)
            assert "is already paid" in str(asked)
            assert world.status(renewal) == "Active"
        else:
            assert world.status(renewal) == "Cancelled"
        sound(world, ahead.as_of)


def test_voiding_while_it_is_paid(world: World, officer: str) -> None:
    """Void and waiting, or paid and the request refused."""
    for turn in range(ROUNDS):
        plan = fresh(world)
        number = world.invoice(plan)
        settled, voided = at_once(
            world.settle,
            lambda n=number, again=turn % 2 == 0: invoices.void(
                world.engine, officer, n, "wrong", reissue=again, as_of=TODAY
            ),
        )
        assert settled is None
        if isinstance(voided, Exception):
            assert isinstance(voided, NotAllowed)
            assert world.status(plan) == "Active"
        else:
            assert (world.status(plan), world.invoice(plan)) == ("Pending", None)
            assert (
                world.sql(
                    "SELECT outcome FROM prepaid.transactions WHERE invoice_number = :n", n=number
                )
                == "parked"
            )
    sound(world)


def test_voiding_while_its_record_is_matched(world: World, officer: str) -> None:
    """A record is judged before the invoice is void or after it: never matched to a void one."""
    for _ in range(ROUNDS):
        known = set(world.plans())
        world.subscription(world.customer(), world.plan("30.00"))
        (plan,) = (p for p in world.open() if p not in known)
        number = world.invoice(plan)
        world.record(number)
        matched, voided = at_once(
            world.match,
            lambda n=number: invoices.void(world.engine, officer, n, "wrong", as_of=TODAY),
        )
        assert isinstance(matched, dict)
        assert voided == plan
        world.match()
        assert world.rows(
            "SELECT t.outcome, k.status FROM prepaid.transactions t JOIN prepaid.tasks k"
            " USING (transaction_id) WHERE invoice_number = :n",
            n=number,
        ) == [("parked", "Open")]
    sound(world)


def test_two_people_cancel_the_same_subscription(world: World, officer: str) -> None:
    """One of them does, the other is told."""
    for _ in range(ROUNDS):
        subscription, plan = active(world, "30.00")
        ask = [
            lambda s=subscription: subscriptions.cancel(
                world.engine, officer, Named(s, None), "leaves", at_once=True, as_of=DAY
            )
        ] * 2
        done = at_once(*ask)
        refused = [d for d in done if isinstance(d, Exception)]
        assert len(refused) == 1
        assert "is already cancelled, as of 2026-11-12" in str(refused[0])
        assert notes(world, plan) == 1
    numbers = world.rows("SELECT credit_note_number FROM prepaid.credit_notes ORDER BY 1")
    assert [int(n.rpartition("-")[2]) for (n,) in numbers] == list(range(1, len(numbers) + 1))
