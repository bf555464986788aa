"""Each form does what it says, under the person's own name, and answers in words."""

import html
import re
from collections.abc import Callable
from typing import Any

import pytest

from prepaid_pipeline.audit import seals
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps, story
from tests.desk.conftest import Browser
from tests.desk.many import payments
from tests.world import World, context

Browsers = Callable[..., Browser]


@pytest.fixture
def plan(world: World) -> int:
    return payments(world, 1)[0]


def signed(world: World) -> list[tuple[Any, ...]]:
    return world.rows("SELECT decision, decided_by, note FROM prepaid.sign_offs ORDER BY 1")


def message(browser: Browser) -> str:
    assert browser.last is not None
    found = re.search(r'role="status"><p>(.*?)</p>', browser.last.text, re.DOTALL)
    assert found is not None, browser.last.text
    return re.sub(r"<[^>]+>|&#39;", "", found.group(1)).strip()


def seen(browser: Browser) -> str:
    assert browser.last is not None
    found = re.search(r'name="seen" value="(\d+)"', browser.last.text)
    assert found is not None
    return found.group(1)


def decide(browser: Browser, task: int, decision: str, **fields: str) -> str:
    browser.get(f"/payments/{task}")
    browser.post(f"/payments/{task}/decide", decision=decision, seen=seen(browser), **fields)
    return message(browser)


def test_approved_with_evidence(world: World, browser: Browsers, plan: int) -> None:
    finance = browser("finance")
    said = decide(finance, world.task(plan), "approved", evidence="statement 44", note="seen twice")
    assert said == f"Done. Payment of invoice {world.invoice(plan)} approved."
    assert signed(world) == [("approved", finance.name, "evidence statement 44; seen twice")]
    # The desk's own login may seal what was logged, at once.
    assert seals.unsealed(world.engine) == 0
    # The same again is a readable answer and no second sign-off.
    again = decide(finance, world.task(plan), "approved", note="evidence statement 44; seen twice")
    assert again == "Note. You have already approved this payment."
    world.settle()
    assert world.status(plan) == "Active"
    finance.get(f"/payments/{world.task(plan)}")
    assert "is Paid: nothing is left to decide" in finance.last.text


def test_a_rejection_needs_a_reason(world: World, browser: Browsers, plan: int) -> None:
    finance = browser("finance")
    assert decide(finance, world.task(plan), "rejected", note=" ").startswith("Not done. Task")
    assert "needs a note that says why" in message(finance)
    assert signed(world) == []
    decide(finance, world.task(plan), "rejected", note="not on the statement")
    assert world.holds(plan) == ["payment_rejected"]


def test_somebody_was_faster(world: World, browser: Browsers, plan: int) -> None:
    first, second = browser("finance"), browser("finance")
    task = world.task(plan)
    second.get(f"/payments/{task}")
    decide(first, task, "rejected", note="blocked account")
    second.post(f"/payments/{task}/decide", decision="approved", seen="0", note="")
    assert message(second) == (
        f"Not done. Nothing was recorded: {first.name} rejected task {task} while you looked."
    )
    assert [row[0] for row in signed(world)] == ["rejected"]
    # What was typed is not lost.
    second.post(f"/payments/{task}/decide", decision="rejected", seen="0", note="my own words")
    assert ">my own words</textarea>" in second.last.text


def test_a_payment_that_no_longer_agrees(world: World, browser: Browsers, plan: int) -> None:
    finance = browser("finance")
    task = world.task(plan)
    finance.get(f"/payments/{task}")
    assert 'name="agreed" value="yes"' in finance.last.text
    world.record(
        world.invoice(plan),
        provider_ref=world.sql("SELECT provider_ref FROM prepaid.transactions"),
        status="Chargeback",
        occurred_at="2026-11-03T10:00:00Z",
    )
    finance.post(f"/payments/{task}/decide", decision="approved", seen="0", agreed="yes")
    assert "no longer agrees (a later record of the same payment says Chargeback)" in message(
        finance
    )
    finance.get("/payments/confirm?all=yes")
    assert "You cannot approve any of these payments together" in message(finance)
    finance.get("/payments")
    finance.post("/payments/approve", tasks=f"{task}:0")
    assert "no longer agrees" in message(finance)
    assert signed(world) == []


def test_what_the_forms_of_others_send(world: World, browser: Browsers, plan: int) -> None:
    finance = browser("finance")
    task = world.task(plan)
    finance.get("/payments")
    for tasks in ("", "x:y", f"{task}", f"{task}:0:0", "1:0," * 5001 + "1:0"):
        finance.post("/payments/approve", tasks=tasks)
        assert "nothing was recorded" in message(finance)
    for said in ("passed", "", "perhaps"):
        finance.post(f"/payments/{task}/decide", decision=said, seen="0")
        assert "the decision must be approved or rejected" in message(finance)
    finance.post(f"/payments/{task}/decide", decision="approved", seen="many")
    assert "The form was not complete" in message(finance)
    assert signed(world) == []


def test_two_approvals(world: World, browser: Browsers, plan: int) -> None:
    world.sql("INSERT INTO prepaid.approval_limits VALUES ('USD', 5)")
    first, second = browser("finance"), browser("finance")
    task = world.task(plan)
    assert "a second person in finance approves it next" in decide(first, task, "approved")
    first.get("/payments/confirm?all=yes")
    assert "You cannot approve any of these payments together" in message(first)
    assert world.status(plan) == "Pending"
    decide(second, task, "approved")
    assert world.rows("SELECT first_approved_by, decided_by FROM prepaid.tasks") == [
        (first.name, second.name)
    ]


def test_handing_over(world: World, browser: Browsers, plan: int) -> None:
    finance, other = browser("finance"), browser("finance")
    task = world.task(plan)
    finance.get(f"/payments/{task}")
    assert f"<option>{other.name}</option>" in finance.last.text
    finance.post(f"/tasks/{task}/reassign", person=other.name, back="payments", note="on leave")
    assert message(finance) == f"Done. The task is now with {other.name}."
    assert f'href="/payments/{task}"' in other.get("/payments?show=mine").text
    assert f'href="/payments/{task}"' not in finance.get("/payments?show=mine").text
    other.get(f"/payments/{task}")
    other.post(f"/tasks/{task}/reassign", person="", back="payments")
    assert message(other) == "Done. The task is now with the whole team."
    other.post(f"/tasks/{task}/reassign", person="nobody", back="payments")
    assert "nobody is not in finance" in message(other)


def test_a_parked_payment_is_assigned(world: World, browser: Browsers, plan: int) -> None:
    world.sql("DELETE FROM prepaid.transactions")
    number = world.invoice(plan)
    world.record(number.replace("-", ""), amount="10.73", customer_ref="M1")
    world.match()
    finance, other = browser("finance"), browser("finance")
    review = world.sql("SELECT task_id FROM prepaid.tasks WHERE kind = 'payment_review'")
    page = finance.get(f"/parked/{review}").text
    assert f"Assign to {number}" in page
    finance.post(f"/parked/{review}/assign", invoice_number="INV-1", note="their number")
    assert "there is no invoice INV-1" in message(finance).replace("There", "there")
    finance.post(f"/parked/{review}/assign", invoice_number=number.lower(), note="their number")
    assert f"assigned to invoice {number}" in message(finance)
    world.match()
    # Four eyes: who assigned it does not approve it.
    finance.get(f"/payments/{world.task(plan)}")
    assert "you assigned the payment to the invoice" in finance.last.text
    assert "approved" in decide(other, world.task(plan), "approved")
    world.settle()
    assert world.status(plan) == "Active"


def test_a_parked_payment_is_closed(world: World, browser: Browsers, plan: int) -> None:
    world.record("INV-0000", amount="5.00")
    world.match()
    finance = browser("finance")
    review = world.sql("SELECT task_id FROM prepaid.tasks WHERE kind = 'payment_review'")
    finance.get(f"/parked/{review}")
    finance.post(f"/parked/{review}/close", decision="approved", seen="0", note="")
    assert "Say what was done" in message(finance)
    finance.post(f"/parked/{review}/close", decision="approved", seen="0", note="paid back")
    assert signed(world) == [("approved", finance.name, "paid back")]
    assert "No parked payment is waiting" in finance.get("/parked").text


def test_a_held_plan_is_released(world: World, browser: Browsers, plan: int) -> None:
    world.approve(plan, word="reject", note="blocked account")
    care = browser("customer_success")
    care.get(f"/plans/{plan}")
    care.post(f"/plans/{plan}/release", note="asked the customer")
    assert "only finance can" in message(care)
    finance = browser("finance")
    assert "blocked account" in finance.get("/held").text
    finance.get(f"/plans/{plan}")
    finance.post(f"/plans/{plan}/release", note="asked the customer")
    assert message(finance) == "Done. The plan is released and continues where it stopped."
    assert world.holds(plan) == []


def test_an_address_that_was_missing(world: World, browser: Browsers) -> None:
    world.tax_rate("0.0725")
    world.due_renewal(email=None)
    (plan,) = world.open()
    assert world.holds(plan) == ["no_email"]
    finance, care = browser("finance"), browser("customer_success")
    assert "/address" not in finance.get(f"/plans/{plan}").text
    care.get(f"/plans/{plan}")
    care.post(f"/plans/{plan}/address", address="not an address")
    assert "not a valid email address" in message(care)
    care.post(f"/plans/{plan}/address", address="new@example.com")
    assert message(care) == "Done. The address is saved, and the plan continues."
    world.open()
    assert world.holds(plan) == []
    assert world.invoice(plan)
    assert world.rows("SELECT actor FROM prepaid.audit_log WHERE event = 'customer_changed'") == [
        (care.name,)
    ]


def test_an_invoice_is_voided_and_a_plan_cancelled(
    world: World, browser: Browsers, plan: int
) -> None:
    number, finance = world.invoice(plan), browser("finance")
    finance.get(f"/plans/{plan}")
    finance.post(f"/plans/{plan}/void", invoice_number=number, reissue="no", note="wrong price")
    assert message(finance).startswith(f"Done. Invoice {number} is void.")
    assert world.holds(plan) == ["invoice_voided"]
    finance.post(f"/plans/{plan}/cancel", when="at_once", note="")
    assert "needs a note" in message(finance)
    finance.post(f"/plans/{plan}/cancel", when="at_once", note="the customer left")
    assert world.status(plan) == "Cancelled"
    assert "Cancelled" in finance.get(f"/plans/{plan}").text


def test_a_refund(world: World, browser: Browsers, plan: int) -> None:
    world.approve(plan)
    world.settle()
    finance, other = browser("finance"), browser("finance")
    finance.get(f"/plans/{plan}")
    finance.post(f"/plans/{plan}/cancel", when="at_once", note="the customer left")
    assert "credit note" in message(finance)
    refund = world.task(plan, "payment_refund")
    assert f'href="/refunds/{refund}"' in other.get("/refunds").text
    other.get(f"/refunds/{refund}")
    other.post(f"/refunds/{refund}/close", decision="approved", seen="0", evidence="re_1")
    assert message(other) == f"Done. Task {refund} is approved."
    assert signed(world)[-1] == ("approved", other.name, "evidence re_1")


def test_checks_pass_together_fail_alone_and_are_followed_up(
    world: World, browser: Browsers
) -> None:
    plans = payments(world, 3)
    world.approve(*plans)
    world.settle()
    care = browser("customer_success")
    tasks = [world.task(plan, "quality_check") for plan in plans]
    care.get("/quality/confirm")
    assert "Choose at least one" in message(care)
    page = care.get(f"/quality/confirm?task={tasks[0]}&task={tasks[1]}&task=999999").text
    assert "Pass 2 checks?" in page
    assert "1 of those you chose is left out" in page
    pairs = re.search(r'name="tasks" value="([^"]+)"', page)
    assert pairs is not None
    care.post("/quality/pass", tasks=pairs.group(1))
    assert message(care) == "Done. 2 checks passed."
    care.get(f"/quality/{tasks[2]}")
    care.post(f"/quality/{tasks[2]}/decide", decision="passed", failed="Plan 2", seen="0")
    assert "A check with a failed feature cannot pass" in message(care)
    care.post(f"/quality/{tasks[2]}/decide", decision="failed", failed="Plan 2", seen="0")
    assert message(care) == f"Done. Check {tasks[2]} failed."
    assert world.sql("SELECT note FROM prepaid.tasks WHERE decision = 'failed'") == (
        "Plan 2: not reachable"
    )
    steps.close_quality_checks(world.engine, context())
    assert world.holds(plans[2]) == ["quality_failed"]
    follow_up = world.task(plans[2], "quality_follow_up")
    assert "Failed before" in care.get(f"/quality/{follow_up}").text
    assert "Follow-up" in care.get("/quality?show=follow_up").text
    care.get(f"/quality/{follow_up}")
    care.post(f"/quality/{follow_up}/decide", decision="passed", seen="0")
    steps.close_quality_checks(world.engine, context())
    assert world.holds(plans[2]) == []


def test_the_whole_story(world: World, browser: Browsers, plan: int) -> None:
    world.approve(plan, note="evidence statement 44")
    world.settle()
    finance = browser("finance")
    page = finance.get(f"/plans?name={world.invoice(plan)}").text
    for part in (
        "Service plan opened",
        "Invoice open",
        "Task opened",
        "Payment record",
        "Sign off",
        "statement 44",
        "Invoice paid",
        "Service plan active",
        "Service provisioned",
        "activation confirmation to someone@example.com",
    ):
        assert part in page, part
    finance.get("/plans?name=INV-NONE")
    assert message(finance) == (
        "Note. There is no service plan INV-NONE, and no invoice of that number."
    )


def why(browser: Browser, plan: int) -> list[str]:
    """What the section says under its heading."""
    page = browser.get(f"/plans/{plan}").text
    found = re.search(r'<section aria-labelledby="why">(.*?)</section>', page, re.DOTALL)
    said = re.findall(r"<(?:h2|p)[^>]*>(.*?)</(?:h2|p)>", found[1]) if found else []
    return [html.unescape(part) for part in said]


def test_why_it_is_what_it_is(world: World, browser: Browsers, plan: int) -> None:
    finance, care, engineer = (
        browser("finance"),
        browser("customer_success"),
        browser("engineering"),
    )
    told = story.tell(world.engine, plan)
    assert told.why.endswith("waits for finance's approval.")
    assert why(finance, plan) == ["Why it is Pending", told.why]
    assert why(engineer, plan) == ["Why it is Pending", told.why, str(told.proof)]
    # What a plan waits for is in payment records, which are not for this team.
    assert why(care, plan) == []
    world.approve(plan)
    run = "5fdf18af-0000-4000-8000-000000000000"
    world.settle(context(run_id=run))
    seals.seal(world.engine)
    told = story.tell(world.engine, plan)
    assert f"and pipeline in run {run} activated it on 2026-11-02 as a new plan" in told.why
    proof = (
        f"{told.proof.entries} of its {told.proof.entries} audit entries are as they were sealed."
    )
    assert why(engineer, plan) == ["Why it is Active", told.why, proof]
    without_run = told.why.replace(f" in run {run}", "")
    assert why(finance, plan) == ["Why it is Active", without_run]
    (heading, said) = why(care, plan)
    assert heading == "Why it is Active"
    assert re.fullmatch(
        f"It is Active because invoice {world.invoice(plan)} for 10.73 USD was paid, which"
        r" test_officer verified at [-0-9]{10} [0-9:]{5} UTC, and pipeline activated it at"
        r" [-0-9]{10} [0-9:]{5} UTC as a new plan from 2026-11-02 to 2026-12-02\.",
        said,
    )
    with world.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE prepaid.audit_log DISABLE TRIGGER ALL")
        connection.exec_driver_sql(
            "UPDATE prepaid.audit_log SET actor = 'me' WHERE event = 'service_plan_active'"
        )
    assert why(engineer, plan)[2].startswith("THE LOG WAS CHANGED: entry")


def test_why_it_was_imported_or_cancelled(world: World, browser: Browsers, plan: int) -> None:
    imported = world.due_renewal()
    world.cancel(plan)
    for team in ("finance", "customer_success", "engineering"):
        person = browser(team)
        assert why(person, imported)[1] == story.tell(world.engine, imported).why
        # An imported term has no entries: nothing is said of them.
        assert len(why(person, imported)) == 2
        assert why(person, plan)[1] == story.tell(world.engine, plan).why


def test_the_history(world: World, browser: Browsers, plan: int) -> None:
    finance, care = browser("finance"), browser("customer_success")
    decide(finance, world.task(plan), "rejected", note="blocked account")
    decide(finance, world.task(plan), "approved", note="cleared up")
    page = finance.get("/history").text
    assert page.index("cleared up") < page.index("blocked account")
    assert "blocked account" not in finance.get("/history?show=approved").text
    assert "cleared up" in finance.get("/history?search=CLEARED").text
    assert "No decision matches" in finance.get("/history?search=elsewhere").text
    # Each team sees its own.
    assert "cleared up" not in care.get("/history").text


def test_what_differs_and_what_has_no_record(world: World, browser: Browsers) -> None:
    plans = payments(world, 12, one_in=4)
    invoices = [world.invoice(plan) for plan in plans]
    world.sql("DELETE FROM prepaid.transactions WHERE invoice_number = :n", n=invoices[0])
    reference = "SELECT provider_ref FROM prepaid.transactions WHERE invoice_number = :n"
    world.record(
        invoices[1],
        provider_ref=world.sql(reference, n=invoices[1]),
        status="Refunded",
        occurred_at="2026-11-03T10:00:00Z",
    )
    decisions.decide(world.engine, world.officer(), [world.task(plans[2])], "approve", None)
    finance = browser("finance")
    for show, condition in (
        ("agree", "agrees"),
        ("differ", "NOT agrees AND record_ref IS NOT NULL"),
        ("none", "record_ref IS NULL"),
        ("overdue", "false"),
        ("second", "false"),
    ):
        listed = {
            int(t)
            for t in re.findall(
                r'href="/payments/(\d+)"', finance.get(f"/payments?show={show}").text
            )
        }
        expected = {
            row[0]
            for row in world.rows(
                "SELECT task_id FROM prepaid.payment_verifications"  # noqa: S608
                f" WHERE status = 'Open' AND {condition}"
            )
        }
        assert listed == expected, show
        assert bool(expected) is (condition != "false")
    for search, found in (("cUSTOMER 12", 1), (invoices[4], 1), ("10.73", 11), ("M7", 1), ("x", 0)):
        page = finance.get("/payments", search=search).text
        assert len(set(re.findall(r'href="/payments/(\d+)"', page))) == found, search
