"""The month of both teams in a real browser, by keyboard; pictures of it are in docs/desk.md."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date

import pytest
from playwright.sync_api import expect
from sqlalchemy import Engine

from prepaid_pipeline.desk.app import build
from prepaid_pipeline.revenue.report.formats import files
from prepaid_pipeline.settings.desk import load
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.storage import Store
from tests.desk.chromium import Seen, needs_chromium, served, window
from tests.desk.conftest import PASSWORD
from tests.desk.many import payments
from tests.mail.conftest import free_port
from tests.revenue.test_report_versions import report
from tests.world import World

# Beside these: one above the limit, one whose record is over another amount.
AGREEING = 200
LARGEST = 100 * 1024
OCTOBER = date(2026, 10, 1)
_HOLD = """
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
VALUES (:plan, 'no_email', 'The customer has no email address. Ask for one.')
"""


def sign_in(seen: Seen, name: str) -> None:
    seen.open("/sign-in")
    seen.tab_to("Name")
    seen.page.keyboard.type(name)
    seen.tab_to("Password")
    seen.page.keyboard.type(PASSWORD)
    seen.keys("Enter")
    expect(seen.page.get_by_text(name, exact=True)).to_be_visible()


def sign_out(seen: Seen) -> None:
    seen.tab_to("Sign out")
    seen.keys("Enter")
    expect(seen.page.get_by_text("You are signed out.")).to_be_visible()


def says(seen: Seen, text: str) -> None:
    expect(seen.page.get_by_role("status")).to_contain_text(text)


@needs_chromium
def test_a_payment_is_approved(
    world: World, desk_engine: Engine, settings: Settings, new_person: Callable[..., str]
) -> None:
    """The smallest journey: one person signs in, approves what agrees, and signs out."""
    payments(world, 3)
    with desk(desk_engine, settings) as seen:
        seen.open("/sign-in")
        seen.check("sign in")
        sign_in(seen, new_person("finance"))
        seen.open("/payments")
        seen.check("payments")
        seen.tab_to("Approve all that agree")
        seen.keys("Enter")
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("Approve 3 payments?")
        seen.tab_to("Approve 3 payments")
        seen.keys("Enter")
        says(seen, "3 payments approved.")
        sign_out(seen)
        nothing_strange(seen)
    world.settle()
    assert statuses(world) == [("Active", 3)]


@pytest.mark.long
@needs_chromium
def test_the_month_of_both_teams(
    world: World, desk_engine: Engine, settings: Settings, new_person: Callable[..., str]
) -> None:
    plans = payments(world, AGREEING + 2, one_in=AGREEING + 2, dear="1200.00")
    world.record("INV-2026-00001", provider_ref="bank-77", amount="10.73", customer_ref="M7")
    world.match()
    world.sql("INSERT INTO prepaid.approval_limits VALUES ('USD', 1000)")
    world.sql(_HOLD, plan=plans[5])
    report(world.engine, date(2026, 11, 8), OCTOBER)
    files.write(world.engine, settings, Store.of(settings), OCTOBER, OCTOBER)

    with desk(desk_engine, settings) as seen:
        seen.open("/sign-in")
        seen.check("sign in")
        finance_approves(seen, new_person("finance", "test_ana"))
        second_approves(seen, new_person("finance", "test_ben"))
        world.settle()
        assert statuses(world) == [("Active", AGREEING), ("Pending", 2)]
        finance_clears_up(seen, plans[5], plans[9])
        world.settle()
        assert statuses(world) == [("Active", AGREEING), ("Cancelled", 1), ("Pending", 1)]
        customer_success(seen, world, new_person("customer_success", "test_cleo"))
        leadership(seen, new_person("leadership", "test_dora"))
        nothing_strange(seen)
        assert len(seen.sizes) > 20


@contextmanager
def desk(engine: Engine, settings: Settings) -> Iterator[Seen]:
    """A window on the desk."""
    port = free_port()
    app = build(engine, settings, load({"PREPAID_DESK_PORT": str(port)}))
    with served(app, port) as home, window(home) as seen:
        yield seen


def nothing_strange(seen: Seen) -> None:
    assert seen.page.evaluate("document.cookie") == ""
    assert seen.elsewhere == []
    assert seen.complaints == []
    assert {url: size for url, size in seen.sizes.items() if size > LARGEST} == {}


def statuses(world: World) -> list[tuple[str, int]]:
    return world.rows("SELECT status, count(*) FROM prepaid.service_plans GROUP BY 1 ORDER BY 1")


def finance_approves(seen: Seen, name: str) -> None:
    sign_in(seen, name)
    seen.check("overview")
    seen.open("/payments")
    seen.check("payments", "wide", "narrow")
    # Some that are chosen one by one, without deciding.
    seen.tab_to("Choose invoice")
    seen.keys("Space")
    seen.tab_to("Choose invoice")
    seen.keys("Space")
    seen.page.get_by_role("button", name="Approve the chosen ones").press("Enter")
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Approve 2 payments?")
    # All that agree: count and total, then one confirmation.
    seen.open("/payments")
    seen.tab_to("Approve all that agree")
    seen.keys("Enter")
    title = f"Approve {AGREEING + 1} payments?"
    expect(seen.page.get_by_role("heading", level=1)).to_have_text(title)
    expect(seen.page.get_by_role("row", name="USD")).to_contain_text("3,433.00")
    expect(seen.page.get_by_text("1 of them is above the limit.")).to_be_visible()
    seen.check("confirm", "wide")
    seen.tab_to(f"Approve {AGREEING + 1} payments")
    seen.keys("Enter")
    says(seen, f"{AGREEING + 1} payments approved.")
    says(seen, "Above the limit, and waiting for a second person: 1.")
    # Two are left: the one above the limit, and the one that differs, which is rejected.
    seen.open("/payments?show=differ")
    seen.follow("INV-")
    expect(seen.page.get_by_text("The record says 11.73, the invoice 10.73")).to_be_visible()
    seen.check("payment", "wide")
    seen.tab_to("Why not")
    seen.page.keyboard.type("one dollar too much, the customer was called")
    seen.tab_to("Reject")
    seen.keys("Enter")
    says(seen, "rejected")
    seen.open("/payments?show=second")
    seen.follow("INV-")
    expect(seen.page.get_by_text("you have approved it already")).to_be_visible()
    sign_out(seen)


def second_approves(seen: Seen, name: str) -> None:
    """On a phone's width, still by keyboard."""
    seen.on_a("narrow")
    sign_in(seen, name)
    seen.open("/payments?show=second")
    seen.follow("INV-")
    expect(seen.page.get_by_text("a second person has to approve it too")).to_be_visible()
    seen.check("second approval")
    seen.tab_to("Evidence")
    seen.page.keyboard.type("statement 44, line 7")
    seen.tab_to("Approve")
    seen.keys("Enter")
    says(seen, "approved")


def finance_clears_up(seen: Seen, held: int, active: int) -> None:
    seen.on_a("wide")
    seen.open("/parked")
    seen.check("parked")
    seen.follow("bank-77")
    seen.check("parked payment")
    seen.open("/held")
    seen.check("held")
    seen.follow(f"Plan {held}")
    seen.tab_to("What was done")
    seen.page.keyboard.type("address asked for and entered")
    seen.tab_to("Release the plan")
    seen.keys("Enter")
    says(seen, "The plan is released")
    seen.check("plan", "wide")
    seen.open("/history")
    seen.check("decisions")
    finance_cancels(seen, active)
    assert seen.complaints == []
    seen.open("/quality")
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Not for your team")
    seen.check("trouble")
    seen.complaints.clear()
    sign_out(seen)


def finance_cancels(seen: Seen, plan: int) -> None:
    """What was paid and is not used is paid back: a task for somebody else."""
    seen.open(f"/plans/{plan}")
    seen.tab_to("Cancel this plan")
    seen.keys("Enter")
    seen.tab_to("at the end of the term")
    seen.keys("ArrowDown")
    seen.tab_to("Why")
    seen.page.keyboard.type("moved abroad")
    seen.tab_to("Cancel the plan")
    seen.keys("Enter")
    says(seen, "credit note CN-2026-000001")
    seen.open("/refunds")
    seen.check("refunds")
    seen.follow("CN-2026")
    seen.check("refund")


def customer_success(seen: Seen, world: World, name: str) -> None:
    sign_in(seen, name)
    seen.open("/quality")
    seen.check("checks")
    seen.tab_to("Choose Quality check")
    seen.keys("Space")
    seen.tab_to("Choose Quality check")
    seen.keys("Space")
    seen.page.get_by_role("button", name="Pass the chosen ones").press("Enter")
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Pass 2 checks?")
    seen.check("pass")
    seen.tab_to("Quality checks")
    seen.keys("Enter")
    seen.follow(re.compile(r"Quality check \d"))
    seen.check("check", "wide")
    seen.tab_to("All reachable")
    seen.keys("Enter")
    says(seen, "passed")
    # On to the next one, which fails.
    seen.tab_to("Plan ")
    seen.keys("Space")
    seen.on_a("narrow")
    seen.tab_to("What is wrong")
    seen.page.keyboard.type("the sign-in page answers 404")
    seen.tab_to("Failed")
    seen.keys("Enter")
    says(seen, "failed")
    decided = world.rows(
        "SELECT s.decision, s.decided_by, s.note FROM prepaid.sign_offs s JOIN prepaid.tasks k"
        " USING (task_id) WHERE k.kind = 'quality_check' ORDER BY s.sign_off_id"
    )
    assert decided[0] == ("passed", name, None)
    assert decided[1][:2] == ("failed", name)
    assert decided[1][2].endswith(": the sign-in page answers 404")
    sign_out(seen)


def leadership(seen: Seen, name: str) -> None:
    sign_in(seen, name)
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Monthly reports")
    seen.check("reports")
    seen.tab_to(name)
    seen.keys("Enter")
    seen.check("account")
    seen.open("/reports")
    seen.tab_to("October 2026")
    seen.keys("Enter")
    seen.page.wait_for_url("**/reports/2026-10/report.html")
    expect(seen.page.get_by_role("heading", level=1)).to_contain_text("October 2026")
    # The links in a report are from file to file.
    seen.tab_to("All months")
    seen.keys("Enter")
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Monthly reports")
    seen.tab_to("October 2026 as JSON")
    with seen.page.expect_download() as saved:
        seen.keys("Enter")
    assert saved.value.suggested_filename == "2026-10-report.json"
