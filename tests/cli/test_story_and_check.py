"""prepaid story and prepaid check."""

import json

from prepaid_pipeline import people, queries
from tests.cli.conftest import Prepaid
from tests.world import World


def test_story_tells_everything_in_order(world: World, prepaid: Prepaid) -> None:
    world.due_renewal()
    (plan,) = world.open()  # held: no tax rate yet
    world.tax_rate("0.0725")
    people.release(
        world.engine, world.officer("test_engineer", "engineering"), plan, "rate imported"
    )
    world.open()
    world.record(world.invoice(plan), provider_ref="bank-4711")
    world.match()
    world.approve(plan)
    world.settle()
    assert prepaid("drain", "--as-of", "2026-11-02").code == 0

    told = prepaid("story", plan, "--json").json()
    assert told["plan"]["service_plan_id"] == plan
    assert told["plan"]["invoice_number"] == "INV-2026-000001"
    assert (told["plan"]["status"], told["plan"]["total"]) == ("Active", "10.73")
    events = [event["event"] for event in told["events"]]
    assert events == [
        "service_plan_opened",
        "service_plan_processing",
        "hold_placed",
        "hold_released",
        "invoice_open",
        "task_opened",
        "service_plan_pending",
        "payment_record",
        "transaction_matched",
        "sign_off",
        "task_decided",
        "invoice_paid",
        "service_plan_active",
        "service_provisioned",
        "email_ordered",
        "task_opened",
        "email_sent",
    ]
    times = [event["at"] for event in told["events"]]
    assert times == sorted(times)
    said = json.dumps(told)
    for word in ("No tax rate is known", "rate imported", "bank-4711", "test_officer",
                 "someone@example.com", "renewal from 2026-11-02 to 2026-12-02"):  # fmt: skip
        assert word in said, word

    by_invoice = prepaid("story", "INV-2026-000001")
    assert by_invoice.code == 0
    lines = by_invoice.out.splitlines()
    assert any(line.split() == ["invoice", "number", "INV-2026-000001"] for line in lines)
    assert len(lines) == len(told["plan"]) + 2 + len(events)


def test_story_of_nothing(world: World, prepaid: Prepaid) -> None:
    outcome = prepaid("story", "INV-1999-000001")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("prepaid: there is no service plan INV-1999-000001")
    assert prepaid("story").code == 2


def test_story_of_imported_history(world: World, prepaid: Prepaid) -> None:
    plan = world.due_renewal()
    told = prepaid("story", plan, "--json").json()
    assert told["plan"]["origin"] == "imported"
    assert told["events"] == []
    assert prepaid("story", plan).code == 0


def test_check(world: World, prepaid: Prepaid) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay_and_approve(plan)
    world.settle()
    clean = prepaid("check", "--as-of", "2026-11-02")
    assert (clean.code, clean.err) == (0, "")
    lines = clean.out.splitlines()
    assert len(lines) == len(queries.names("checks"))
    assert all(line.startswith("ok    ") for line in lines)

    # A month and a week later, the plan's term has ended and nothing followed.
    late = prepaid("check", "--as-of", "2026-12-10")
    assert late.code == 1
    (failed,) = [line for line in late.out.splitlines() if line.startswith("FAIL")]
    assert failed.startswith("FAIL  No renewal was missed in silence")
    assert "      - subscription S3: its term ended on 2026-12-02 and nothing followed" in late.out

    results = prepaid("check", "--as-of", "2026-12-10", "--json")
    assert results.code == 1
    assert [(r["check"], len(r["findings"])) for r in results.json() if r["findings"]] == [
        ("07_no_silent_misses", 1)
    ]
