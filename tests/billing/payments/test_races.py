"""Money taken back at the very moment at which plans are settled with it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from prepaid_pipeline.operations import invariants
from tests.world import World, context


@pytest.mark.parametrize("attempt", range(4))
def test_chargebacks_while_settling(world: World, attempt: int) -> None:
    """A plan ends as taken back, or as not paid at all; never as paid with money that is gone."""
    world.tax_rate("0.0725")
    for _ in range(30):
        world.due_renewal()
    plans = world.open()
    world.pay_and_approve(*plans)
    world.sql(
        "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount,"
        " currency, status, occurred_at) SELECT provider, provider_ref, invoice_number, amount,"
        " currency, 'Chargeback', occurred_at + interval '1 hour' FROM prepaid.transactions"
        " WHERE transaction_id % 2 = 0"
    ) if attempt % 2 else None
    together = Barrier(2)

    def settle() -> None:
        together.wait()
        world.settle()

    def take_back() -> None:
        together.wait()
        if not attempt % 2:
            world.sql(
                "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount,"
                " currency, status, occurred_at) SELECT provider, provider_ref, invoice_number,"
                " amount, currency, 'Chargeback', occurred_at + interval '1 hour'"
                " FROM prepaid.transactions WHERE transaction_id % 2 = 0"
            )
        world.match()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(settle), pool.submit(take_back)]:
            done.result()
    world.match()
    world.settle()
    assert [f for c in invariants.run(world.engine, context()) for f in c.findings] == []
    taken_back = world.rows(
        "SELECT p.status, i.status, EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id ="
        " p.service_plan_id AND h.released_at IS NULL AND h.reason_code = 'payment_reversed')"
        " FROM prepaid.transactions t JOIN prepaid.invoices i USING (invoice_id)"
        " JOIN prepaid.service_plans p USING (service_plan_id) WHERE t.status = 'Chargeback'"
    )
    assert len(taken_back) == 15
    assert set(taken_back) <= {("Active", "Open", True), ("Pending", "Open", False)}
    assert sum(world.status(plan) == "Active" for plan in plans) >= 15
    assert not world.rows("SELECT FROM prepaid.holds WHERE reason_code = 'step_failed'")
