"""What a database of 0.1.0 hid behind a wrong time is judged again after the upgrade."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from prepaid_pipeline.database import migrations
from prepaid_pipeline.operations import invariants
from tests.database.make_release import LAST_DAY
from tests.database.releases import at_release
from tests.world import World, context

_PAID = """
SELECT t.transaction_id, i.service_plan_id FROM prepaid.invoices i
JOIN prepaid.transactions t USING (transaction_id)
JOIN prepaid.service_plans p ON p.service_plan_id = i.service_plan_id
WHERE i.status = 'Paid' AND p.status = 'Active'
  AND NOT EXISTS (SELECT FROM prepaid.transactions o
                  WHERE o.provider_ref = t.provider_ref AND o.transaction_id <> t.transaction_id)
  AND NOT EXISTS (SELECT FROM prepaid.credit_notes n WHERE n.service_plan_id = p.service_plan_id)
ORDER BY i.invoice_id LIMIT 3
"""
_DATE = """
UPDATE prepaid.transactions SET occurred_at = CAST(:at AS timestamptz) WHERE transaction_id = :record
"""
_CHARGE_BACK = """
INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency, status,
                                  occurred_at, outcome, outcome_reason, decided_at)
SELECT provider, provider_ref, invoice_number, amount, currency, 'Chargeback',
       CAST(:at AS timestamptz), 'superseded', 'a later record says that the payment stands', now()
FROM prepaid.transactions WHERE transaction_id = :record
"""


@pytest.fixture(scope="module")
def upgraded(cluster: URL) -> Iterator[tuple[World, list[int]]]:
    """Of three paid plans, the first two payments were charged back behind a wrong time."""
    with at_release(cluster, "0.1.0") as engine:
        world = World(engine)
        records, plans = zip(*world.rows(_PAID), strict=True)
        for record, paid, charged_back in zip(
            records,
            ("2962-11-02", "2026-10-01", "2962-11-02"),
            ("2026-11-01", "2026-01-02", None),
            strict=True,
        ):
            world.sql(_DATE, record=record, at=paid)
            if charged_back:
                world.sql(_CHARGE_BACK, record=record, at=charged_back)
        migrations.upgrade(engine)
        yield world, list(plans)


def test_what_was_hidden_is_found_and_the_rest_stays_paid(
    upgraded: tuple[World, list[int]],
) -> None:
    world, (behind_the_future, before_its_payment, untouched) = upgraded
    world.record(world.invoice(untouched), "1.00", status="Pending")
    world.match(context(LAST_DAY))
    held = [
        "payment_reversed" in world.holds(plan)
        for plan in (behind_the_future, before_its_payment, untouched)
    ]
    assert held == [True, True, False]
    assert (
        world.sql(
            "SELECT status FROM prepaid.invoices WHERE invoice_number = :n",
            n=world.invoice(untouched),
        )
        == "Paid"
    )
    # A month that was closed without these chargebacks has other figures now, and says so.
    found = invariants.run(world.engine, context(LAST_DAY))
    wrong = [line for check in found for line in check.findings]
    assert [line for line in wrong if "changed since version" not in line] == []
