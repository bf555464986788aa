"""What people read at the desk: no codes, no "None", numbers in one format; found as they are typed."""

import html
import re
import uuid
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from prepaid_pipeline.database import queries
from prepaid_pipeline.desk.amounts import meant, spellings
from prepaid_pipeline.settings.load import Settings
from tests.desk.chromium import needs_chromium
from tests.desk.conftest import Browser
from tests.desk.many import payments
from tests.desk.test_journey import desk, nothing_strange, sign_in
from tests.world import World

Browsers = Callable[..., Browser]
QUOTE = "\N{RIGHT SINGLE QUOTATION MARK}"
# 1,234.50 and 7.25 % of it.
DEAR = "1,324.00"


@pytest.fixture
def people(new_person: Callable[..., str]) -> Callable[[str], str]:
    """A name without underscores: what is left of them are codes."""
    return lambda team: new_person(team, f"test{uuid.uuid4().hex[:8]}")


def read(page: str) -> str:
    """The text of a page's main part."""
    main = re.sub(r"<(?:select|script|style).*?</(?:select|script|style)>", "", page, flags=re.S)
    text = re.sub(r"<[^>]+>", " ", main.partition("<main")[2])
    return re.sub(r"\s+", " ", html.unescape(text))


def numbers(text: str) -> list[str]:
    """Amounts of four digits or more without commas."""
    return re.findall(r"(?<![\w.,-])\d{4,}(?:\.\d+| [A-Z]{3}\b)", text)


def test_a_parked_record_just_after_it_was_assigned(
    world: World, browser: Browsers, people: Callable[[str], str]
) -> None:
    plan = payments(world, 1, dear="1234.50", one_in=1)[0]  # the record is one dollar too much
    finance = browser(name=people("finance"))
    assert f"paid 1,325.00, invoiced {DEAR}".capitalize() in read(finance.get("/parked").text)
    review = world.sql("SELECT task_id FROM prepaid.tasks WHERE kind = 'payment_review'")
    finance.get(f"/parked/{review}")
    invoice = world.invoice(plan)
    finance.post(f"/parked/{review}/assign", invoice_number=invoice, note="a dollar too much")
    waits = f"Assigned to invoice {invoice}; the next run matches it"
    for page in ("/parked", f"/parked/{review}"):
        said = read(finance.get(page).text)
        assert waits in said
        assert "None" not in said.replace("None yet.", "")
    assert "Nothing now: the next run looks at the record again." in said
    with world.engine.connect() as connection:
        listed = queries.statement("people/tasks", "open")
        (row,) = listed.execute(connection, {"kind": "payment_review"})
    assert row.detail == "assigned to an invoice: the next run matches it"
    world.match()
    said = read(finance.get(f"/payments/{world.task(plan)}").text)
    assert "1,325.00 was paid and assigned to this invoice by" in said


def test_a_story_has_no_codes(
    world: World, browser: Browsers, people: Callable[[str], str]
) -> None:
    plans = payments(world, 2, dear="1234.50")
    finance = browser(name=people("finance"))
    world.sql(
        "INSERT INTO prepaid.holds (service_plan_id, reason_code, text) VALUES (:p,"
        " 'payment_mismatch', 'Paid 1325.00, invoiced 1324.00. Ask the customer.')",
        p=plans[0],
    )
    other = browser(name=people("finance"))
    other.get(f"/plans/{plans[0]}")
    other.post(f"/plans/{plans[0]}/release", note="see my_note -> 12")
    task = world.task(plans[0])
    page = finance.get(f"/payments/{task}")
    seen = re.search(r'name="seen" value="(\d+)"', page.text)
    assert seen is not None
    finance.post(f"/payments/{task}/decide", decision="approved", seen=seen[1], agreed="yes")
    world.settle()
    for who in (finance, browser(name=people("engineering"))):
        told = read(who.get(f"/plans/{plans[0]}").text)
        for wanted in (
            "Pending to Processing",
            "Service plan opened by",
            "payment verification for finance, due on",
            "quality check for customer success, due on",
            "payment mismatch: Paid 1,325.00, invoiced 1,324.00. Ask the customer.",
            "payment mismatch (see my_note -> 12)",
            f"Success {DEAR} USD for INV-",
            f"for {DEAR} USD was paid by",
            "activation confirmation to someone@example.com: pending",
        ):
            assert wanted in told, wanted
        assert re.findall(r"\b[a-z]+_[a-z_]+\b", told) == ["my_note"]
        assert told.count("->") == 1
        assert numbers(told) == []


def test_amounts_are_found_however_they_are_typed(world: World, browser: Browsers) -> None:
    payments(world, 2, dear="1234.50")
    world.record("INV-2026-00001", provider_ref="lost-1", amount="1324.00")
    world.record("INV-2026-00002", provider_ref="lost-2", amount="85.68")
    world.match()
    finance = browser("finance")
    for path, found, searches in (
        ("/payments", 1, ("1324.00", "1,324.00", "1.324,00", "1324,00", "1324", "1 324", "1,324")),
        ("/payments", 1, ("10.73", "10,73")),
        ("/payments/confirm", 1, ("1324.00", "1.324,00")),
        ("/parked", 1, ("85,68", "85.68", "lost-2", " 85,68 ")),
        ("/parked", 1, ("1324", "1.324")),
        ("/parked", 0, ("85,69", "8568", "-85,68")),
    ):
        for search in searches:
            page = finance.get(path, search=search, all="1").text
            link = rf'href="{path.removesuffix("/confirm")}/(\d+)"'
            assert len(set(re.findall(link, page))) == found, (path, search)


@given(
    st.decimals(-(10**9), 10**9, places=2), st.sampled_from([",.", ".,", " ,", f"{QUOTE}.", "_,"])
)
def test_an_amount_is_meant_however_it_is_written(amount: Decimal, marks: str) -> None:
    group, point = marks.replace("_", "")[:-1], marks[-1]
    written = f"{amount:,}".translate({ord(","): group, ord("."): point})
    assert meant(written) == [amount]
    assert meant(f"{amount}") == meant(f"{amount}".replace(".", ",")) == [amount]
    assert sorted(spellings(f"{amount}")) == sorted(spellings(f"{amount}".replace(".", ",")))


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("1,234", [1234, Decimal("1.234")]),
        ("1.234", [1234, Decimal("1.234")]),
        ("\u22125.00", [-5]),
        ("INV-2026-000001", []),
        ("12.34.56", []),
        ("1,23,456.00", []),
        ("12,34.56", []),
        ("1e5", []),
        ("٣", []),
        ("9" * 400, []),
        ("", []),
    ],
)
def test_what_a_text_may_mean(text: str, amounts: list[Decimal]) -> None:
    assert meant(text) == amounts


@needs_chromium
def test_nothing_stands_under_its_label_on_a_phone(
    world: World, desk_engine: Engine, settings: Settings, new_person: Callable[..., str]
) -> None:
    """Marks, bold words and what follows them; a reference that has no blank to break at."""
    plans = payments(world, 3, dear="1234.50", one_in=2)
    world.due_renewal()
    world.open()  # without a record
    world.record("INV-2026-00001", provider_ref="pi_" + 45 * "x", amount="85.68")
    world.match()
    world.sql("UPDATE prepaid.tasks SET due_on = DATE '2026-10-01'")
    world.sql(
        "INSERT INTO prepaid.holds (service_plan_id, reason_code, text) VALUES (:p,"
        " 'no_email', 'The customer has no email address. Ask for one.')",
        p=plans[0],
    )
    with desk(desk_engine, settings) as seen:
        sign_in(seen, new_person("finance"))
        for page in ("payments", "parked", "held"):
            seen.open(f"/{page}")
            seen.check(page)
        nothing_strange(seen)
