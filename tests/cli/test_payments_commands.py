"""prepaid payments list, suggestions and assign."""

from tests.cli.conftest import Prepaid
from tests.world import World


def test_from_a_parked_record_to_its_invoice(world: World, prepaid: Prepaid) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    record = world.record("INV-2026-000010", "10.73", provider_ref="p1")
    world.match()
    assert prepaid("user", "add", "cli_clerk", "--team", "finance").code == 0

    (parked,) = prepaid("payments", "list", "--outcome", "parked", "--json").json()
    assert (parked["transaction_id"], parked["reason"]) == (
        record,
        "there is no invoice INV-2026-000010",
    )
    assert "there is no invoice INV-2026-000010" in prepaid("payments", "list").out
    (suggestion,) = prepaid("payments", "suggestions", "--json").json()
    assert suggestion["invoice_number"] == world.invoice(plan)
    assert "two digits exchanged" in prepaid("payments", "suggestions").out

    said = prepaid(
        "payments",
        "assign",
        str(record),
        world.invoice(plan),
        "--as",
        "cli_clerk",
        "--note",
        "a slip of the hand",
    )
    assert said.out == f"record {record} assigned to INV-2026-000001 by cli_clerk; it is matched\n"
    assert prepaid("payments", "list", "--outcome", "parked", "--json").json() == []

    again = prepaid(
        "payments", "assign", str(record), world.invoice(plan), "--as", "cli_clerk", "--note", "x"
    )
    assert again.code == 1
    assert again.err == (
        f"prepaid: payment record {record} is matched: only a parked one can be assigned\n"
    )
