"""From the provider's file to the paid and active plan, and back."""

from pathlib import Path

import pytest

from tests.billing.providers.deliveries import take, write
from tests.billing.providers.statements import entry, statement
from tests.world import World, context

HEADER = (
    "balance_transaction_id,created_utc,currency,gross,reporting_category,source_id,charge_id,"
    "payment_metadata[invoice_number],payment_metadata[customer_ref]"
)


@pytest.fixture
def plan(module_world: World) -> int:
    module_world.sql(
        "INSERT INTO prepaid.tax_rates SELECT 'US', 'standard', 0.0725, '2020-01-01'"
        " WHERE NOT EXISTS (SELECT FROM prepaid.tax_rates)"
    )
    module_world.due_renewal()
    return module_world.open()[-1]


def state(world: World, plan: int) -> tuple[str, str]:
    paid = world.sql("SELECT status FROM prepaid.invoices WHERE service_plan_id = :p", p=plan)
    return world.status(plan), paid


def test_stripe(module_world: World, plan: int, tmp_path: Path) -> None:
    world, number = module_world, module_world.invoice(plan)
    customer = world.sql(
        "SELECT customer_ref FROM prepaid.customers JOIN prepaid.invoices USING (customer_id)"
        " WHERE invoice_number = :n",
        n=number,
    )
    charge = f"txn_1,2026-11-02 08:00:00,usd,10.73,charge,ch_1,ch_1,{number},{customer}"
    dispute = f"txn_2,2026-11-20 08:00:00,usd,-10.73,dispute,du_1,ch_1,{number},{customer}"
    take(world.engine, write(tmp_path, "a.csv", f"{HEADER}\n{charge}\n"))
    assert world.match()["matched"] == 1
    world.approve(plan)
    world.settle()
    assert state(world, plan) == ("Active", "Paid")
    take(world.engine, write(tmp_path, "b.csv", f"{HEADER}\n{charge}\n{dispute}\n"))
    world.match(context())
    assert state(world, plan) == ("Active", "Open")
    assert world.holds(plan) == ["payment_reversed"]


def test_a_bank(module_world: World, plan: int, tmp_path: Path) -> None:
    world, number = module_world, module_world.invoice(plan)
    broken = f"Renewal {number[:10].lower()} {number[10:]}"
    paid = entry("B1", amount="10.73", currency="USD", text=broken)
    back = entry(
        "B2",
        amount="10.73",
        currency="USD",
        text=number,
        direction="DBIT",
        day="2026-11-20",
        more="<RvslInd>true</RvslInd>",
    )
    take(world.engine, write(tmp_path, "a.xml", statement(paid)))
    assert world.match()["matched"] == 1
    world.approve(plan)
    world.settle()
    assert state(world, plan) == ("Active", "Paid")
    take(world.engine, write(tmp_path, "b.xml", statement(paid, back)))
    world.match(context())
    assert state(world, plan) == ("Active", "Open")
    assert world.holds(plan) == ["payment_reversed"]
