"""prepaid customers erase: nothing personal is left anywhere, and nothing else is lost."""

import re
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.audit import seals
from prepaid_pipeline.billing import subscriptions
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.mail.sender import send_emails
from prepaid_pipeline.operations import erasure, invariants
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from prepaid_pipeline.settings.load import Settings
from tests.cli.conftest import Prepaid, prepaid, typed
from tests.world import TODAY, World, context

__all__ = ["prepaid", "typed"]

PERSONAL = ("Ada Personal", "ada.personal", "Personal Note", "Personal Company")
LATER = date(2026, 12, 15)
# Every row of every table of ours as text.
_TABLES = """
SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables
WHERE table_schema IN ('prepaid', 'revenue') AND table_type = 'BASE TABLE' ORDER BY 1
"""


def personal(world: World) -> dict[str, int]:
    """Table -> how many of its rows say something personal; bytes count as the text they are."""
    found = {}
    for (table,) in world.rows(_TABLES):
        rows = [str(row[0]) for row in world.rows(f"SELECT t::text FROM {table} t")]  # noqa: S608
        if table == "prepaid.emails":
            contents = world.rows("SELECT content FROM prepaid.emails WHERE content IS NOT NULL")
            rows += [bytes(row[0]).decode(errors="replace") for row in contents]
        if hits := sum(any(word in row for word in PERSONAL) for row in rows):
            found[table] = hits
    return found


@pytest.fixture
def settled(world: World, settings: Settings) -> World:
    """Customer C1 with a plan that was assigned, handed over, rejected, approved and mailed."""
    world.tax_rate("0.0725")
    world.due_renewal(email="ada.personal@example.com")
    world.sql("UPDATE prepaid.customers SET name = 'Ada Personal'")
    (plan,) = world.open()
    care = world.officer("erasure_care", "customer_success")
    second, third = world.officer("erasure_second"), world.officer("erasure_third")
    record = world.record("Personal Company", "10.73", provider_ref="p1", customer_ref="C1")
    assert record
    world.match()
    decisions.assign(world.engine, world.officer(), record, world.invoice(plan), "Personal Note")
    world.match()
    decisions.reassign(world.engine, second, [world.task(plan)], third, "Personal Note")
    decisions.decide(world.engine, second, [world.task(plan)], "reject", "Personal Note")
    decisions.release(world.engine, world.officer(), plan, "Personal Note")
    decisions.decide(world.engine, third, [world.task(plan)], "approve", "Personal Note")
    world.settle()
    assert world.status(plan) == "Active"
    check = world.task(plan, "quality_check")
    decisions.decide(world.engine, care, [check], "approve", "Personal Note")
    steps.close_quality_checks(world.engine, context())
    send_emails(world.engine, settings, as_of=TODAY, run_id=None)
    return world


def end(world: World, settings: Settings) -> None:
    """The customer leaves, and what is under way comes to its end."""
    named = subscriptions.find(world.engine, "S3")
    subscriptions.cancel(
        world.engine, "erasure_care", named, "Personal Note", at_once=False, on=None, as_of=TODAY
    )
    steps.expire_service_plans(world.engine, context(LATER))
    send_emails(world.engine, settings, as_of=LATER, run_id=None)


def erase(world: World, settings: Settings, person: str = "erasure_care") -> erasure.Erased:
    return erasure.erase(world.engine, settings, person, "C1", "asked by letter", LATER)


def test_nothing_personal_is_left(settled: World, settings: Settings) -> None:
    end(settled, settings)
    amounts = "SELECT net, tax, total, payable, status, issued_on FROM prepaid.invoices"
    invoices = settled.rows(amounts)
    before = personal(settled)
    assert before.keys() >= {
        "prepaid.customers",
        "prepaid.emails",
        "prepaid.service_plans",
        "prepaid.sign_offs",
        "prepaid.requests",
        "prepaid.tasks",
        "prepaid.task_assignments",
        "prepaid.transactions",
        "prepaid.holds",
    }
    assert list(settings.mail_directory.rglob("*.eml"))
    done = erase(settled, settings)
    assert done.mails == done.files > 0
    assert personal(settled) == {}
    assert not list(settings.mail_directory.rglob("*.eml"))
    assert settled.rows(amounts) == invoices
    assert settled.rows("SELECT country, currency FROM prepaid.customers") == [("US", "USD")]
    assert settled.rows("SELECT country FROM prepaid.service_plans WHERE origin = 'pipeline'") == [
        ("US",)
    ]
    assert settled.rows(
        "SELECT actor, entity, after, detail FROM prepaid.audit_log WHERE event = 'customer_erased'"
    ) == [("erasure_care", "customer", "erased", None)]
    assert settled.rows("SELECT reason, erased_by, erased_on FROM prepaid.erasures") == [
        ("asked by letter", "erasure_care", LATER)
    ]
    seals.seal(settled.engine)
    assert seals.verify(settled.engine) == []
    found = invariants.run(settled.engine, context(LATER))
    assert {check.name: check.findings for check in found if check.findings} == {}


def test_a_refund_that_comes_later_is_judged_all_the_same(
    settled: World, settings: Settings
) -> None:
    end(settled, settings)
    erase(settled, settings)
    settled.record(
        None, "10.73", provider_ref="p1", status="Refunded", occurred_at="2026-12-20T10:00:00Z"
    )
    settled.match(context(date(2026, 12, 20)))
    assert settled.rows(
        "SELECT status, outcome FROM prepaid.transactions ORDER BY transaction_id"
    ) == [("Success", "superseded"), ("Refunded", "parked")]
    assert settled.rows("SELECT status FROM prepaid.invoices") == [("Open",)]


def test_what_is_under_way_comes_first(settled: World, settings: Settings) -> None:
    with pytest.raises(
        NotAllowed, match=r"customer C1 cannot be erased: service plan \d is Active"
    ):
        erase(settled, settings)
    before = personal(settled)
    steps.expire_service_plans(settled.engine, context(LATER))
    with pytest.raises(NotAllowed, match="subscription S3 continues: cancel it first"):
        erase(settled, settings)
    assert personal(settled) == before
    end(settled, settings)
    ways = (
        (
            "UPDATE prepaid.tasks SET status = 'Open', decision = NULL WHERE kind = 'quality_check'",
            r"task \d+ \(quality_check\) is open",
        ),
        ("UPDATE prepaid.emails SET status = 'pending', sent_at = NULL", r"mail \d+ is pending"),
        ("UPDATE prepaid.transactions SET outcome = NULL", r"payment record \d+ is not judged"),
        (
            "INSERT INTO prepaid.holds (service_plan_id, reason_code, text)"
            " SELECT max(service_plan_id), 'step_failed', 'y' FROM prepaid.service_plans",
            r"is held \(step_failed\)",
        ),
    )
    for statement, refusal in ways:
        with settled.engine.connect() as connection:
            connection.execute(text("SELECT set_config('prepaid.as_of', '2026-12-15', true)"))
            connection.execute(text(statement))
            said = connection.execute(text("SELECT prepaid.erasure_refusal(1)")).scalar()
            connection.rollback()
        assert re.search(refusal, said or ""), said
    erase(settled, settings)
    with pytest.raises(NotAllowed, match="was already erased on 2026-12-15 by erasure_care"):
        erase(settled, settings)


def test_who_may(settled: World, settings: Settings) -> None:
    end(settled, settings)
    for team in ("finance", "leadership"):
        with pytest.raises(NotAllowed):
            erase(settled, settings, settled.officer(f"erasure_{team}", team))
    assert "prepaid.customers" in personal(settled)
    erase(settled, settings, settled.officer("erasure_engineer", "engineering"))


def test_of_signed_rows_only_the_words_can_go(settled: World) -> None:
    """Whoever is past the rights still meets the triggers."""
    for table in ("sign_offs", "requests", "task_assignments"):
        for change in ("note = 'other'", "note = NULL"):
            if settled.sql(f"SELECT count(*) FROM prepaid.{table}"):  # noqa: S608
                with pytest.raises(DBAPIError, match="append-only"):
                    settled.sql(f"UPDATE prepaid.{table} SET {change}")  # noqa: S608
    with pytest.raises(DBAPIError, match="append-only"):
        settled.sql("UPDATE prepaid.sign_offs SET note = '(erased)', decision = 'approved'")
    settled.sql("UPDATE prepaid.sign_offs SET note = '(erased)' WHERE note IS NOT NULL")


def test_an_import_does_not_bring_it_back(
    settled: World, settings: Settings, prepaid: Prepaid, tmp_path: Path
) -> None:
    end(settled, settings)
    done = prepaid(
        "customers",
        "erase",
        "C1",
        "--as",
        "erasure_care",
        "--reason",
        "by letter",
        "--as-of",
        "2026-12-15",
    )
    assert done.code == 0
    assert done.out.startswith("Customer C1 is erased; emails emptied: ")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "customers.csv").write_text(
        "customer_ref,name,email,country,currency,tax_exempt\n"
        "C1,Ada Personal,ada.personal@example.com,US,USD,false\n"
        "C77,Somebody,else@example.com,US,USD,false\n"
    )
    done = prepaid("import", folder)
    assert done.code == 0
    assert "customers.csv:2:customer_ref: found 'C1', this customer was erased on 2026-12-15" in (
        done.out + done.err
    )
    assert personal(settled) == {}
    assert settled.sql("SELECT count(*) FROM prepaid.customers WHERE customer_ref = 'C77'") == 1
    again = prepaid("customers", "erase", "C99", "--as", "erasure_care", "--reason", "x")
    assert (again.code, "there is no customer C99" in again.err) == (1, True)
