"""prepaid user, tasks and held: what people see and decide on the command line."""

import pytest

from tests.cli.conftest import Prepaid
from tests.world import World

PROMISED = {"task_id", "kind", "invoice_number", "customer_ref", "currency", "total", "agrees"}


@pytest.fixture
def plans(world: World, prepaid: Prepaid) -> list[int]:
    """Three invoices: the record agrees, the record is too low, there is no record yet."""
    world.tax_rate("0.0725")
    for _ in range(3):
        world.due_renewal()
    plans = world.open()
    world.record(world.invoice(plans[0]))
    world.record(world.invoice(plans[1]), "1.00")
    world.match()
    for name, team in (("cli_clerk", "finance"), ("cli_care", "customer_success")):
        assert prepaid("user", "add", name, "--team", team).code == 0
    return plans


def test_user_add(world: World, prepaid: Prepaid) -> None:
    name = "cli new person"
    world.sql(f'DROP ROLE IF EXISTS "{name}"')
    assert prepaid("user", "add", name, "--team", "finance").out == f"{name} added to finance\n"
    again = prepaid("user", "add", name, "--team", "finance")
    assert (again.code, again.out) == (0, f"{name} is already in finance\n")
    assert prepaid("user", "add", name, "--team", "board").code == 2
    assert prepaid("user", "add", name).code == 2
    refused = prepaid("user", "add", "finance", "--team", "finance")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == "prepaid: 'finance' cannot be a person's name: it is reserved\n"


def test_tasks_list(world: World, prepaid: Prepaid, plans: list[int]) -> None:
    tasks = prepaid("tasks", "list", "--json").json()
    assert all(tasks[0].keys() >= PROMISED for task in tasks)
    verifications = [task for task in tasks if task["kind"] == "payment_verification"]
    assert [
        (t["task_id"], t["invoice_number"], t["currency"], t["total"], t["agrees"])
        for t in verifications
    ] == [
        (world.task(plans[0]), "INV-2026-000001", "USD", "10.73", True),
        (world.task(plans[1]), "INV-2026-000002", "USD", "10.73", False),
        (world.task(plans[2]), "INV-2026-000003", "USD", "10.73", False),
    ]
    assert [t["detail"] for t in verifications] == [
        None,
        "the record says 1.00, the invoice 10.73",
        "no record from a payment provider yet",
    ]
    assert verifications[0]["customer_ref"] == "C1"
    (review,) = [task for task in tasks if task["kind"] == "payment_review"]
    assert (review["total"], review["detail"]) == ("1.00", "paid 1.00, invoiced 10.73")

    only = prepaid("tasks", "list", "--kind", "payment_review", "--json").json()
    assert only == [review]
    assert prepaid("tasks", "list", "--kind", "lunch").code == 2
    table = prepaid("tasks", "list").out.splitlines()
    assert table[0].split() == [
        "task",
        "kind",
        "since",
        "invoice",
        "customer",
        "total",
        "agrees",
        "detail",
    ]
    assert len(table) == 5


def test_tasks_list_of_an_empty_database(world: World, prepaid: Prepaid) -> None:
    assert prepaid("tasks", "list", "--json").json() == []
    assert prepaid("tasks", "list").code == 0


def test_approve_by_number_and_all_agreeing(
    world: World, prepaid: Prepaid, plans: list[int]
) -> None:
    agreeing = prepaid("tasks", "approve", "--all-agreeing", "--as", "cli_clerk")
    assert (agreeing.code, agreeing.out) == (0, "1 approved by cli_clerk\n")
    tasks = [world.task(plan) for plan in plans]
    refused = prepaid("tasks", "approve", *tasks, "--as", "cli_clerk")
    assert refused.code == 1
    assert "there is nothing to approve: " in refused.err
    assert "assign" in refused.err
    world.pay(plans[2])
    paid = prepaid("tasks", "approve", tasks[0], tasks[2], "--as", "cli_clerk")
    assert (paid.code, paid.out) == (0, "1 approved by cli_clerk\n")
    assert world.rows("SELECT decided_by, count(*) FROM prepaid.sign_offs GROUP BY 1") == [
        ("cli_clerk", 2)
    ]
    again = prepaid("tasks", "approve", "--all-agreeing", "--as", "cli_clerk")
    assert (again.code, again.out) == (0, "0 approved by cli_clerk\n")


def test_reject_holds_and_release_by_number_of_invoice(
    world: World, prepaid: Prepaid, plans: list[int]
) -> None:
    task = world.task(plans[1])
    assert prepaid("tasks", "reject", task, "--as", "cli_clerk").code == 2  # no note
    said = prepaid("tasks", "reject", task, "--as", "cli_clerk", "--note", "9.73 are missing")
    assert (said.code, said.out) == (0, "1 rejected by cli_clerk\n")
    (held,) = prepaid("held", "list", "--json").json()
    assert (held["service_plan_id"], held["reason_code"]) == (plans[1], "payment_rejected")
    assert "9.73 are missing" in held["text"]
    assert "9.73 are missing" in prepaid("held", "list").out

    release = ("--as", "cli_clerk", "--note", "the rest has come")
    said = prepaid("held", "release", "INV-2026-000002", *release)
    assert (said.code, said.out) == (0, f"service plan {plans[1]} released by cli_clerk\n")
    assert prepaid("held", "list", "--json").json() == []
    again = prepaid("held", "release", plans[1], *release)
    assert (again.code, again.err) == (1, f"prepaid: service plan {plans[1]} is not held\n")
    unknown = prepaid("held", "release", "INV-1999-000001", *release)
    assert unknown.code == 1
    assert unknown.err == (
        "prepaid: there is no service plan INV-1999-000001, and no invoice of that number\n"
    )


def test_release_by_plan(world: World, prepaid: Prepaid, plans: list[int]) -> None:
    prepaid("tasks", "reject", world.task(plans[2]), "--as", "cli_clerk", "--note", "no")
    said = prepaid("held", "release", plans[2], "--as", "cli_clerk", "--note", "yes")
    assert said.out == f"service plan {plans[2]} released by cli_clerk\n"
    assert world.holds(plans[2]) == []


REFUSED: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (
        ("tasks", "approve", "1", "--as", "nobody_here"),
        1,
        "prepaid: there is no person 'nobody_here': add them with"
        " 'prepaid user add nobody_here --team …'",
    ),
    (
        ("tasks", "approve", "1", "--as", "cli_care"),
        1,
        "task 1 cannot be decided: it belongs to finance, and cli_care is not in that team",
    ),
    (("tasks", "approve", "99", "--as", "cli_clerk"), 1, "prepaid: there is no task 99"),
    (("tasks", "approve", "1"), 2, "Missing option '--as'"),
    (("tasks", "approve", "--as", "cli_clerk"), 2, "name tasks, or say --all-agreeing"),
    (
        ("tasks", "approve", "1", "--all-agreeing", "--as", "cli_clerk"),
        2,
        "name tasks, or say --all-agreeing",
    ),
    (("tasks", "approve", "one", "--as", "cli_clerk"), 2, "'one' is not a valid integer"),
    (("tasks", "reject", "--as", "cli_clerk", "--note", "x"), 2, "Missing argument 'TASKS...'"),
    (("held", "release", "1", "--as", "cli_clerk"), 2, "Missing option '--note'"),
)


def test_refusals(world: World, prepaid: Prepaid, plans: list[int]) -> None:
    before = world.dump()
    for arguments, code, said in REFUSED:
        outcome = prepaid(*arguments)
        assert (outcome.code, outcome.out) == (code, ""), arguments
        assert said in outcome.err, arguments
    assert world.dump() == before
