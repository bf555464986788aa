"""prepaid due says what prepaid drain then does; neither does anything twice."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from prepaid_pipeline.settings.load import Settings
from tests.cli.conftest import Prepaid
from tests.world import World

AS_OF = ("--as-of", "2026-11-02")


def fill(world: World) -> None:
    """Two currencies, all kinds, one plan that cannot be invoiced, one that is not due yet."""
    world.tax_rate("0.0725")
    world.tax_rate("0.19", country="DE")
    for _ in range(3):
        world.due_renewal()
    euro = world.plan("12.00", currency="EUR")
    german = world.customer(country="DE", currency="EUR")
    world.subscription(german, euro)
    world.subscription(world.customer(), world.plan("7.00"), started_on=date(2026, 11, 9))
    world.due_renewal(email=None)
    world.due_renewal(ends_on=date(2026, 11, 10))


def test_due_changes_nothing_and_drain_does_what_it_said(world: World, prepaid: Prepaid) -> None:
    fill(world)
    before = world.dump()
    said = prepaid("due", *AS_OF, "--json")
    assert said.code == 0
    assert world.dump() == before
    assert said.json() == {
        "as_of": "2026-11-02",
        "totals": [
            {
                "currency": "EUR",
                "kind": "new",
                "plans": 1,
                "net": "12.00",
                "tax": "2.28",
                "total": "14.28",
            },
            {
                "currency": "USD",
                "kind": "new",
                "plans": 1,
                "net": "7.00",
                "tax": "0.51",
                "total": "7.51",
            },
            {
                "currency": "USD",
                "kind": "renewal",
                "plans": 3,
                "net": "30.00",
                "tax": "2.19",
                "total": "32.19",
            },
        ],
        "held": [{"reason_code": "no_email", "plans": 1, "text": said.json()["held"][0]["text"]}],
    }

    done = prepaid("drain", *AS_OF, "--json").json()
    assert (done["opened"], done["invoiced"], done["held"]) == (6, 5, 1)
    opened = world.rows(
        "SELECT i.currency, p.kind, count(*), sum(i.net), sum(i.tax), sum(i.total)"
        " FROM prepaid.invoices i JOIN prepaid.service_plans p USING (service_plan_id)"
        " GROUP BY 1, 2 ORDER BY 1, 2"
    )
    assert opened == [
        (
            row["currency"],
            row["kind"],
            row["plans"],
            Decimal(row["net"]),
            Decimal(row["tax"]),
            Decimal(row["total"]),
        )
        for row in said.json()["totals"]
    ]


def test_due_in_words(world: World, prepaid: Prepaid) -> None:
    fill(world)
    said = prepaid("due", *AS_OF).out.splitlines()
    assert said[0] == "5 service plans are due on 2026-11-02."
    assert said[1].split() == ["currency", "kind", "plans", "net", "tax", "total"]
    assert said[4].split() == ["USD", "renewal", "3", "30.00", "2.19", "32.19"]
    assert said[5].startswith("would be held, no_email: 1; such as: Customer C")


def test_with_nothing_to_do(world: World, prepaid: Prepaid) -> None:
    before = world.dump()
    assert prepaid("due", *AS_OF).out == "0 service plans are due on 2026-11-02.\n"
    assert prepaid("due", *AS_OF, "--json").json()["totals"] == []
    assert prepaid("drain", *AS_OF).out == "As of 2026-11-02:\n  nothing was ready\n"
    assert world.dump() == before


def test_drain_to_the_end_and_again(world: World, prepaid: Prepaid, tmp_path: Path) -> None:
    fill(world)
    assert prepaid("drain", *AS_OF).out.splitlines() == [
        "As of 2026-11-02:",
        "  6 service plans opened",
        "  5 invoiced, waiting for payment and sign-off",
        "  1 held; see 'prepaid held list'",
        "  4 expired",
    ]
    plans = [plan for plan in world.open() if world.invoice(plan)]
    for plan in plans[1:]:
        currency = world.sql(
            "SELECT currency FROM prepaid.invoices WHERE service_plan_id = :p", p=plan
        )
        world.record(world.invoice(plan), currency=currency)
    world.record(world.invoice(plans[0]), "1.00")
    world.match()
    assert prepaid("user", "add", "drain_clerk", "--team", "finance").code == 0
    approved = prepaid("tasks", "approve", "--all-agreeing", "--as", "drain_clerk")
    assert (approved.code, approved.out) == (0, "4 approved by drain_clerk\n")

    assert prepaid("drain", *AS_OF).out.splitlines() == [
        "As of 2026-11-02:",
        "  4 activated, provisioned and confirmed",
        "  4 emails sent",
    ]
    assert len(list((tmp_path / "home" / "mail").rglob("*.eml"))) == 4
    before = world.dump()
    assert prepaid("drain", *AS_OF).out == "As of 2026-11-02:\n  nothing was ready\n"
    assert world.dump() == before
    assert prepaid("check", *AS_OF).code == 0
    assert world.rows(
        "SELECT DISTINCT actor FROM prepaid.audit_log WHERE event = 'invoice_paid'"
    ) == [("prepaid drain",)]


def test_drain_matches_expires_and_closes(world: World, prepaid: Prepaid) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    # The imported term ends on this very day.
    assert prepaid("drain", *AS_OF, "--json").json()["expired"] == 1
    (plan,) = world.plans()
    world.record(world.invoice(plan))
    world.approve(plan)
    done = prepaid("drain", *AS_OF, "--json").json()
    # Matched and settled in one go.
    assert done["records"] == {"matched": 1, "parked": 0, "superseded": 0, "waiting": 0}
    assert (done["settled"], done["expired"], done["mails_sent"]) == (1, 0, 1)
    prepaid("user", "add", "drain_care", "--team", "customer_success")
    task = world.task(plan, "quality_check")
    assert prepaid("tasks", "reject", task, "--as", "drain_care", "--note", "no login").code == 0
    assert prepaid("drain", *AS_OF, "--json").json()["quality"] == {"passed": 0, "failed": 1}


def test_the_date_is_today_where_the_installation_is(
    world: World, prepaid: Prepaid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "today", lambda _: date(2031, 1, 2))
    assert prepaid("due").out == "0 service plans are due on 2031-01-02.\n"
    assert prepaid("drain").out.startswith("As of 2031-01-02:")


def test_drain_duns_what_is_unpaid(world: World, prepaid: Prepaid) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    prepaid("drain", *AS_OF)
    assert prepaid("drain", "--as-of", "2026-11-09").out.splitlines() == [
        "As of 2026-11-09:",
        "  1 payment reminders",
        "  1 emails sent",
    ]
    assert prepaid("drain", "--as-of", "2026-11-09").out.endswith("nothing was ready\n")
    done = prepaid("drain", "--as-of", "2026-12-03", "--json").json()
    assert (done["reminded"], done["cancelled_unpaid"], done["mails_sent"]) == (0, 1, 1)
    before = world.dump()
    assert prepaid("drain", "--as-of", "2026-12-03").out.endswith("nothing was ready\n")
    assert world.dump() == before
    assert prepaid("check", "--as-of", "2026-12-03").code == 0


def test_a_payment_that_has_landed_is_matched_before_anybody_is_reminded(
    world: World, prepaid: Prepaid
) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    prepaid("drain", *AS_OF)
    (plan,) = world.plans()
    world.record(world.invoice(plan))
    done = prepaid("drain", "--as-of", "2026-12-03", "--json").json()
    assert (done["records"]["matched"], done["reminded"], done["cancelled_unpaid"]) == (1, 0, 0)
