"""prepaid subscriptions and prepaid invoices: what people type, and what they are told."""

import csv
import io
from datetime import date

import pytest

from tests.cli.conftest import Prepaid
from tests.world import TODAY, World, context

TO_DAY = ("--as-of", "2026-11-12")
BY = ("--as", "cli_care", "--note", "moves abroad", *TO_DAY)
CLERK = ("--as", "cli_clerk", "--note", "wrong plan", *TO_DAY)


@pytest.fixture
def plan(world: World, prepaid: Prepaid) -> int:
    """A term of 30.00 from 2 November, active: subscription S3, plan 1."""
    world.tax_rate("0.0725")
    world.subscription(world.customer(), world.plan("30.00"))
    (plan,) = world.open()
    world.pay_and_approve(plan)
    world.settle()
    for name, team in (("cli_clerk", "finance"), ("cli_care", "customer_success")):
        assert prepaid("user", "add", name, "--team", team).code == 0
    return plan


def test_cancel_at_the_end(prepaid: Prepaid, plan: int) -> None:
    said = prepaid("subscriptions", "cancel", "S3", *BY)
    assert (said.code, said.out) == (
        0,
        f"subscription S3 is cancelled as of 2026-12-02\nservice plan {plan} ends on 2026-12-02\n",
    )
    again = prepaid("subscriptions", "cancel", "S3", *BY)
    assert (again.code, again.err) == (
        1,
        "prepaid: subscription S3 is already cancelled, as of 2026-12-02\n",
    )


def test_cancel_at_once(prepaid: Prepaid, plan: int) -> None:
    said = prepaid("subscriptions", "cancel", plan, "--at-once", *BY)
    assert said.out == (
        "subscription S3 is cancelled as of 2026-11-12\n"
        f"service plan {plan} ended on 2026-11-12; credit note CN-2026-000001 for 21.45 USD,"
        " to refund: 21.45\n"
    )
    (task,) = prepaid("tasks", "list", "--kind", "payment_refund", "--json").json()
    assert (task["total"], task["currency"], task["detail"]) == (
        "21.45",
        "USD",
        "pay back 21.45 USD: credit note CN-2026-000001",
    )
    told = prepaid("story", plan).out
    assert "cancellation requested" in told
    assert "moves abroad" in told
    assert "2026-12-02 to 2026-11-12" in told


def test_cancel_by_the_invoices_number_on_a_day_that_has_passed(
    prepaid: Prepaid, plan: int
) -> None:
    options = ("--at-once", "--on", "2026-11-07", "--json")
    told = prepaid("subscriptions", "cancel", "INV-2026-000001", *options, *BY).json()
    assert (told["leaves_on"], told["plans"][0]["ends_on"]) == ("2026-11-07", "2026-11-07")
    assert told["plans"][0]["refund"] == "26.82"


def test_which_one_is_meant(world: World, prepaid: Prepaid, plan: int) -> None:
    world.sql("UPDATE prepaid.subscriptions SET subscription_ref = :ref", ref=str(plan))
    unclear = prepaid("subscriptions", "cancel", plan, *BY)
    assert unclear.err == (
        f"prepaid: {plan} is both a subscription and a service plan: write subscription:{plan} or"
        f" plan:{plan}\n"
    )
    assert prepaid("subscriptions", "cancel", f"plan:{plan}", *BY).code == 0
    assert prepaid("subscriptions", "cancel", f"subscription:{plan}", "--at-once", *BY).code == 0
    unknown = prepaid("subscriptions", "cancel", "S99", *BY)
    assert unknown.err == (
        "prepaid: there is no subscription or service plan S99, and no such invoice\n"
    )


def test_change(world: World, prepaid: Prepaid, plan: int) -> None:
    code = world.sql(
        "SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=world.plan("60.00")
    )
    said = prepaid("subscriptions", "change", "S3", "--to", code, "--on", "2026-11-14", *BY)
    assert said.out == (
        f"service plan {plan + 1}: {code} from 2026-11-14 to 2026-12-14, once it is paid\n"
    )
    back = prepaid("subscriptions", "cancel", plan + 1, *BY)
    assert back.out == f"subscription S3 stays\nservice plan {plan + 1} never begins\n"
    again = prepaid(
        "subscriptions",
        "change",
        "S3",
        "--to",
        code,
        "--price",
        "55.5",
        "--addons",
        "",
        *BY,
        "--json",
    )
    assert again.json()["waiting"]["planned_start"] == "2026-11-12"


def test_change_at_renewal(world: World, prepaid: Prepaid, plan: int) -> None:
    codes = [
        world.sql("SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=world.plan(price))
        for price in ("60.00", "90.00")
    ]
    said = prepaid("subscriptions", "change", "S3", "--to", codes[0], "--at-renewal", *BY)
    assert said.out == f"{codes[0]} from the next term on\n"
    world.open(context(date(2026, 11, 28)))
    said = prepaid("subscriptions", "change", "S3", "--to", codes[1], "--at-renewal", *BY)
    assert said.out == (
        f"{codes[1]} from the term after the next one on: that one is invoiced for {codes[0]}."
        " To change it too: prepaid invoices reissue INV-2026-000002\n"
    )
    assert prepaid("invoices", "reissue", "INV-2026-000002", *CLERK).out == (
        f"invoice INV-2026-000002 is void; service plan {plan + 1} gets a new invoice with the next"
        " run\n"
    )
    world.open(context(date(2026, 11, 28)))
    assert str(world.sql("SELECT net FROM prepaid.invoices WHERE status = 'Open'")) == "90.00"


def test_invoices(world: World, prepaid: Prepaid, plan: int) -> None:
    world.sql('UPDATE prepaid.customers SET name = \'=HYPERLINK("x";"Ann, ""B""")\'')
    world.subscription(world.customer(), world.plan())
    world.sql("UPDATE prepaid.customers SET name = '@Bob' WHERE customer_ref <> 'C1'")
    world.open()
    listed = prepaid("invoices", "list", "--status", "all", "--csv", *TO_DAY)
    rows = list(csv.DictReader(io.StringIO(listed.out)))
    assert [(r["invoice_number"], r["name"], r["days_overdue"], r["payable"]) for r in rows] == [
        ("INV-2026-000001", '\'=HYPERLINK("x";"Ann, ""B""")', "", "32.18"),
        ("INV-2026-000002", "'@Bob", "10", "10.73"),
    ]
    (only,) = prepaid("invoices", "list", "--json", *TO_DAY).json()
    assert (only["invoice_number"], only["due_on"], only["received"]) == (
        "INV-2026-000002",
        TODAY.isoformat(),
        "0",
    )
    assert "INV-2026-000002" in prepaid("invoices", "list", *TO_DAY).out
    voided = prepaid("invoices", "void", "INV-2026-000002", *CLERK)
    assert voided.out == (
        f"invoice INV-2026-000002 is void; service plan {plan + 1} is held: release it for a new"
        " invoice, or cancel it\n"
    )
    refused = prepaid("invoices", "void", "INV-2026-000002", *CLERK)
    assert refused.err == (
        "prepaid: invoice INV-2026-000002 is Void: only an open one can be voided\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("subscriptions", "cancel", "S3", "--on", "2026-11-05", *BY), "--on needs --at-once"),
        (("subscriptions", "cancel", "S3", "--as", "cli_care"), "Missing option '--note'"),
        (
            (
                "subscriptions",
                "change",
                "S3",
                "--to",
                "x",
                "--at-renewal",
                "--on",
                "2026-11-15",
                *BY,
            ),
            "--on is a day inside the running term",
        ),
        (
            ("subscriptions", "change", "S3", "--to", "x", "--price", "cheap", *BY),
            "'cheap' is not a price",
        ),
        (
            ("subscriptions", "change", "S3", "--to", "x", "--price", "NaN", *BY),
            "'NaN' is not a price",
        ),
        (
            ("subscriptions", "change", "S3", "--to", "x", "--on", "soon", *BY),
            "'soon' is not a date",
        ),
        (("invoices", "list", "--csv", "--json"), "either --csv or --json"),
        (("invoices", "list", "--status", "Lost"), "'Lost' is not one of"),
    ],
)
def test_wrong_usage(prepaid: Prepaid, plan: int, arguments: tuple[str, ...], said: str) -> None:
    outcome = prepaid(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
