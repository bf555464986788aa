"""prepaid story and prepaid check."""

import json
import re

from sqlalchemy import text

from prepaid_pipeline.database import queries
from prepaid_pipeline.people import decisions
from tests.cli.conftest import Prepaid
from tests.world import World


def test_story_tells_everything_in_order(world: World, prepaid: Prepaid) -> None:
    world.due_renewal()
    (plan,) = world.open()  # held: no tax rate yet
    world.tax_rate("0.0725")
    decisions.release(
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
    for word in (
        "No tax rate is known",
        "rate imported",
        "bank-4711",
        "test_officer",
        "someone@example.com",
        "renewal from 2026-11-02 to 2026-12-02",
    ):
        assert word in said, word

    by_invoice = prepaid("story", "INV-2026-000001")
    assert by_invoice.code == 0
    lines = by_invoice.out.splitlines()
    assert any(line.split() == ["invoice", "number", "INV-2026-000001"] for line in lines)
    assert len(lines) == len(told["plan"]) + 2 + len(events) + 4
    assert lines[0] == told["why"]
    assert re.fullmatch(
        r"It is Active because invoice INV-2026-000001 for 10\.73 USD was paid by bank bank-4711"
        r" over 10\.73 USD of 2026-11-02, which test_officer verified at [-0-9]{10} [0-9:]{5} UTC,"
        r" and pipeline activated it on 2026-11-02 as a renewal from 2026-11-02 to 2026-12-02\.",
        told["why"],
    )
    entries = told["proof"]["entries"]
    assert lines[-1] == f"{entries} of its {entries} audit entries are as they were sealed."


def test_story_says_why_a_plan_waits(world: World, prepaid: Prepaid) -> None:
    world.tax_rate("0.0725")
    ended = world.due_renewal()

    def why(plan: int) -> str:
        return prepaid("story", plan, "--json").json()["why"]

    assert why(ended).startswith("It is Active because it was imported as a term from")
    (plan,) = world.open()
    waits = "It is Pending because invoice INV-2026-000001 for 10.73 USD waits for"
    assert why(plan) == f"{waits} a payment record that matches and for finance's approval."
    world.record(world.invoice(plan))
    world.match()
    assert why(plan) == f"{waits} finance's approval."
    world.approve(plan, word="reject", note="blocked")
    assert why(plan) == (
        f"{waits} a new payment: test_officer rejected this one. It is held: payment rejected."
    )
    world.cancel(plan)
    assert why(plan).startswith("It is Cancelled because ")


def test_story_of_a_changed_entry(world: World, prepaid: Prepaid) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    with world.engine.begin() as connection:
        connection.execute(text("ALTER TABLE prepaid.audit_log DISABLE TRIGGER ALL"))
        connection.execute(
            text(
                "UPDATE prepaid.audit_log SET actor = 'me' WHERE audit_id ="
                " (SELECT max(audit_id) FROM prepaid.audit_log WHERE service_plan_id = :p)"
            ),
            {"p": plan},
        )
    done = prepaid("story", plan)
    assert done.code == 1
    assert "THE LOG WAS CHANGED: entry" in done.out
    # One that was put where nothing was any more is no entry of the log either.
    world.sql(
        "INSERT INTO prepaid.audit_log (audit_id, event, entity, actor, service_plan_id)"
        " OVERRIDING SYSTEM VALUE VALUES (0, 'service_plan_active', 'service_plan', 'me', :p)",
        p=plan,
    )
    assert prepaid("story", plan, "--json").json()["proof"]["changed"][0] == 0


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
    assert len(lines) == len(queries.names("operations/invariants"))
    assert all(line.startswith("ok    ") for line in lines)

    # A month and a week later, the plan's term has ended and nothing followed.
    late = prepaid("check", "--as-of", "2026-12-10")
    assert late.code == 1
    (failed,) = [line for line in late.out.splitlines() if line.startswith("FAIL")]
    assert failed.startswith("FAIL  No renewal was missed silently")
    assert "      - subscription S3: its term ended on 2026-12-02 and nothing followed" in late.out

    results = prepaid("check", "--as-of", "2026-12-10", "--json")
    assert results.code == 1
    assert [(r["check"], len(r["findings"])) for r in results.json() if r["findings"]] == [
        ("07_no_silent_misses", 1)
    ]
