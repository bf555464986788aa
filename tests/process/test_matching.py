"""Records that land together, twice or without a reference get the outcome they would get alone."""

import pytest
from sqlalchemy import text

from tests.world import World

RECORD = text(
    "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency,"
    " status, occurred_at) VALUES ('bank', 'p1', :number, 10.73, 'USD', 'Success', '2026-11-02')"
)


@pytest.fixture
def plans(world: World) -> list[int]:
    """Three renewals of 10.73 in all, invoiced and waiting."""
    world.tax_rate("0.0725")
    for _ in range(3):
        world.due_renewal()
    return world.open()


def outcomes(world: World) -> list[tuple[str, str | None]]:
    return world.rows(
        "SELECT outcome, outcome_reason FROM prepaid.transactions ORDER BY transaction_id"
    )


@pytest.mark.parametrize("missing", ["provider", "provider_ref"])
def test_records_without_a_reference_are_payments_of_their_own(
    world: World, plans: list[int], missing: str
) -> None:
    for plan in plans:
        world.record(
            world.invoice(plan), **{"provider": "bank", "provider_ref": "x", missing: None}
        )
    assert world.match()["matched"] == 3


def test_a_payment_is_not_parked_behind_one_that_is_parked_itself(
    world: World, plans: list[int]
) -> None:
    first, second = (world.invoice(plan) for plan in plans[:2])
    world.record(first, provider_ref="p1", occurred_at="2026-11-02T01:00Z")
    world.record(second, provider_ref="p1", occurred_at="2026-11-02T02:00Z")
    world.record(second, provider_ref="p2", occurred_at="2026-11-02T03:00Z")
    assert world.match() == {"matched": 2, "parked": 1, "superseded": 0, "waiting": 0}
    assert outcomes(world) == [
        ("matched", None),
        ("parked", "payment p1 has paid another invoice"),
        ("matched", None),
    ]


def test_an_earlier_id_that_becomes_visible_later_is_the_same_event(
    world: World, plans: list[int]
) -> None:
    number = world.invoice(plans[0])
    with world.engine.begin() as slow:
        slow.execute(RECORD, {"number": number})
        with world.engine.begin() as fast:
            fast.execute(RECORD, {"number": number})
        assert world.match()["matched"] == 1
    assert world.match() == {"matched": 0, "parked": 0, "superseded": 1, "waiting": 0}


def test_finance_sees_the_record_that_fits_beside_one_without_a_status(
    world: World, plans: list[int]
) -> None:
    number = world.invoice(plans[0])
    fitting = world.record(number)
    world.record(number, status=None, occurred_at=None)
    shown = "SELECT record_ref FROM prepaid.payment_verifications WHERE invoice_number = :n"
    expected = "SELECT provider_ref FROM prepaid.transactions WHERE transaction_id = :t"
    assert world.sql(shown, n=number) == world.sql(expected, t=fitting)
