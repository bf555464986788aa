"""Which times are believed, and what a record with another one does."""

from datetime import date

import pytest

from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.people import decisions
from tests.world import World, context

# A business date at which the records of 2962 have happened; no clock is there.
FAR = context(date(2962, 11, 2))


@pytest.fixture
def number(world: World) -> str:
    """An invoice over 10.73, issued on 2026-11-02."""
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    return world.invoice(plan)


def outcomes(world: World) -> list[tuple[str, str | None]]:
    return world.rows(
        "SELECT outcome, outcome_reason FROM prepaid.transactions ORDER BY transaction_id"
    )


@pytest.mark.parametrize(
    ("at", "days", "outcome"),
    [
        ("2026-08-04T00:00Z", 90, "matched"),
        ("2026-08-03T23:59Z", 90, "parked"),
        ("2026-10-03T00:00Z", 30, "matched"),
        ("2026-10-02T23:59Z", 30, "parked"),
        ("2026-11-01T23:59Z", 0, "parked"),
        ("1971-01-01T00:00Z", None, "matched"),
    ],
)
def test_how_old_a_payment_may_be(
    world: World, number: str, at: str, days: int | None, outcome: str
) -> None:
    world.record(number, occurred_at=at)
    world.match(context(payment_max_age_days=days))
    assert [found for found, _ in outcomes(world)] == [outcome]


@pytest.mark.parametrize("at", ["2962-11-03T23:59Z", "2962-11-04T00:00Z", "2962-11-04T00:01Z"])
def test_the_business_date_may_be_ahead_of_the_clock(world: World, number: str, at: str) -> None:
    """Until a day after its end."""
    world.record(number, occurred_at=at)
    world.match(FAR)
    ((outcome, reason),) = outcomes(world)
    believed = not at.endswith("01Z")
    assert outcome == ("matched" if believed else "parked")
    assert reason == (None if believed else "the record's time (2962-11-04) is not believable")


def test_what_was_believed_once_is_believed_on_an_earlier_date(world: World, number: str) -> None:
    world.record(number, provider_ref="p1", occurred_at="2962-11-02T10:00Z")
    world.match(FAR)
    world.record(number, "4.00")
    world.match()
    assert [outcome for outcome, _ in outcomes(world)] == ["matched", "parked"]


def test_waiting_is_no_answer(world: World, number: str) -> None:
    """Whether something else comes meanwhile would decide, if it was one."""
    world.record(number, occurred_at="2962-11-02T10:00Z")
    world.match()
    world.record(number, "4.00")
    world.match(FAR)
    assert [outcome for outcome, _ in outcomes(world)] == ["parked", "parked"]


def test_who_has_confirmed_it_does_not_approve_it(world: World, number: str) -> None:
    record = world.record(number, occurred_at=None)
    world.match()
    (plan,) = world.plans()
    officer = world.officer()
    assert record is not None
    decisions.assign(world.engine, officer, record, number, "seen on the account")
    world.match()
    with pytest.raises(NotAllowed, match="assigned the payment to the invoice"):
        world.approve(plan)
    decisions.decide(world.engine, world.officer("test_other"), [world.task(plan)], "approve", "")
    world.settle()
    assert world.status(plan) == "Active"


def test_finance_sees_what_is_in_question(world: World, number: str) -> None:
    """In the sign-off table, too, where nobody looks at parked records."""
    world.record(number, occurred_at="2962-11-02T10:00Z")
    world.match()
    assert world.rows("SELECT agrees, difference FROM prepaid.payment_verifications") == [
        (False, "the record's time (2962-11-02) is not believable")
    ]


def test_a_part_that_came_back_at_no_time_is_shown_with_the_payment(
    world: World, number: str
) -> None:
    world.record(number, provider_ref="p1")
    world.record(number, "1.00", provider_ref="p1", status="Refunded", occurred_at=None)
    world.match()
    assert [outcome for outcome, _ in outcomes(world)] == ["matched", "parked"]
    assert world.rows("SELECT agrees, difference FROM prepaid.payment_verifications") == [
        (False, "a later record of the same payment says Refunded")
    ]
