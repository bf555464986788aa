"""Overdue tasks: who is told, once per task and stage, and what the mail says."""

import email
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from email import policy

import pytest

from prepaid_pipeline.context import Context
from prepaid_pipeline.errors import NotAllowed, SettingError
from prepaid_pipeline.mail.sender import send_emails
from prepaid_pipeline.people import accounts, decisions, overdue_tasks
from prepaid_pipeline.settings.load import Settings, load
from tests.world import TODAY, World, context

Person = Callable[[World, str], str]
LEAD = "lead@example.com"


@pytest.fixture
def plan(world: World) -> int:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    return plan


@pytest.fixture
def rules(settings: Settings) -> Settings:
    """The defaults (3 days, then 7), with a lead for finance."""
    return settings.model_copy(update={"team_leads": {"finance": LEAD}})


def somebody(world: World, person: Person, team: str, address: str | None) -> str:
    name = person(world, team)
    if address:
        accounts.add(world.engine, name, team, address)
    return name


def after(days: int) -> Context:
    """A day after the due date, which is three days after today."""
    return context(TODAY + timedelta(days=3 + days))


def told(world: World) -> list[tuple[str, str]]:
    return world.rows("SELECT occasion, recipient FROM prepaid.emails ORDER BY email_id")


def test_the_day_after_and_a_week_after(
    world: World, plan: int, rules: Settings, person: Person
) -> None:
    for address in ("ann@example.com", "bob@example.com", None):
        somebody(world, person, "finance", address)
    somebody(world, person, "customer_success", "care@example.com")
    world.sql("DELETE FROM prepaid.emails")
    assert world.sql("SELECT due_on FROM prepaid.tasks") == date(2026, 11, 5)
    for day, mails in {-1: 0, 0: 0, 1: 2, 2: 0, 6: 0, 7: 1, 8: 0, 30: 0}.items():
        assert overdue_tasks.remind_overdue(world.engine, rules, after(day)) == mails
    assert told(world) == [
        ("overdue 2026-11-06", "ann@example.com"),
        ("overdue 2026-11-06", "bob@example.com"),
        ("escalated 2026-11-12", LEAD),
    ]


def test_who_is_asked_is_told_alone(
    world: World, plan: int, rules: Settings, person: Person
) -> None:
    ann = somebody(world, person, "finance", "ann@example.com")
    bob = somebody(world, person, "finance", "bob@example.com")
    silent = somebody(world, person, "finance", None)
    task = world.task(plan)
    assert decisions.reassign(world.engine, ann, [task], bob, "on holiday") == 1
    assert overdue_tasks.remind_overdue(world.engine, rules, after(1)) == 1
    assert told(world) == [("overdue 2026-11-06", "bob@example.com")]
    # Whom it is handed to is told as well; without an address the whole team is.
    assert decisions.reassign(world.engine, bob, [task], silent, None) == 1
    assert overdue_tasks.remind_overdue(world.engine, rules, after(2)) == 1
    assert told(world)[1:] == [("overdue 2026-11-07", "ann@example.com")]


def test_nobody_has_an_address_yet(
    world: World, plan: int, rules: Settings, person: Person
) -> None:
    name = somebody(world, person, "finance", None)
    assert overdue_tasks.remind_overdue(world.engine, rules, after(1)) == 0
    accounts.add(world.engine, name, "finance", "ann@example.com")
    assert overdue_tasks.remind_overdue(world.engine, rules, after(2)) == 1
    accounts.set_disabled(world.engine, name, True)
    assert overdue_tasks.remind_overdue(world.engine, rules, after(3)) == 0


def test_six_at_once_tell_once(world: World, plan: int, rules: Settings, person: Person) -> None:
    somebody(world, person, "finance", "ann@example.com")
    with ThreadPoolExecutor(6) as pool:
        mails = pool.map(
            lambda _: overdue_tasks.remind_overdue(world.engine, rules, after(1)), range(6)
        )
    assert sorted(mails) == [0, 0, 0, 0, 0, 1]


def test_what_the_mail_says(world: World, plan: int, rules: Settings, person: Person) -> None:
    name = somebody(world, person, "finance", "ann@example.com")
    world.due_renewal()
    other = max(world.open())
    world.pay(other)
    late, decided = world.task(plan), world.task(other)
    overdue_tasks.remind_overdue(world.engine, rules, after(7))
    decisions.decide(world.engine, name, [decided], "approve", None)
    assert send_emails(world.engine, rules, as_of=TODAY).sent == 2
    mails = [
        email.message_from_bytes(path.read_bytes(), policy=policy.default)
        for path in sorted(rules.mail_directory.glob("*.eml"))
    ]
    by_recipient = {str(mail["To"]): mail for mail in mails}
    mine, leads = by_recipient["ann@example.com"], by_recipient[LEAD]
    assert mine["Subject"] == "1 task is overdue"
    assert leads["Subject"] == "1 task is overdue in your team"
    for mail in mails:
        for kind in ("plain", "html"):
            said = mail.get_body((kind,)).get_content()
            assert f"{late}, payment verification" in said
            assert world.invoice(plan) in said
            assert "5 November 2026" in said
            assert f"task {decided}," not in said
            assert f"<td>{decided}," not in said
            assert "sign-off desk" not in said


def test_the_mail_leads_to_the_desk(
    world: World, plan: int, rules: Settings, person: Person
) -> None:
    somebody(world, person, "finance", "ann@example.com")
    overdue_tasks.remind_overdue(world.engine, rules, after(1))
    url = "https://desk.example.com"
    public = rules.model_copy(update={"desk_url": url})
    assert send_emails(world.engine, public, as_of=TODAY).sent == 1
    (path,) = rules.mail_directory.glob("*.eml")
    mail = email.message_from_bytes(path.read_bytes(), policy=policy.default)
    assert f"Decide them at {url}/" in mail.get_body(("plain",)).get_content()
    assert f'<a href="{url}/">' in mail.get_body(("html",)).get_content()


def test_a_mail_of_which_nothing_is_left_is_dropped(
    world: World, plan: int, rules: Settings, person: Person
) -> None:
    name = somebody(world, person, "finance", "ann@example.com")
    overdue_tasks.remind_overdue(world.engine, rules, after(1))
    decisions.decide(world.engine, name, [world.task(plan)], "approve", None)
    assert send_emails(world.engine, rules, as_of=TODAY).dropped == 1
    assert not rules.mail_directory.exists()


def test_handing_on(world: World, plan: int, person: Person) -> None:
    ann, bob = (person(world, "finance") for _ in range(2))
    care = person(world, "customer_success")
    task = world.task(plan)

    def refused(by: str, to: str | None, why: str) -> None:
        with pytest.raises(NotAllowed, match=f"task {task} cannot be assigned: {why}"):
            decisions.reassign(world.engine, by, [task], to, None)

    refused(care, bob, f"it belongs to finance, and {care} is not in that team")
    refused(ann, care, f"{care} is not in finance")
    refused(ann, "nobody at all", "nobody at all is not in finance")
    refused(ann, "finance", "finance is not in finance")
    assert decisions.reassign(world.engine, ann, [task], bob, "on holiday") == 1
    assert decisions.reassign(world.engine, ann, [task], bob, "again") == 0
    assert decisions.reassign(world.engine, bob, [task], None, None) == 1
    assert world.rows(
        "SELECT assigned_to, note, assigned_by FROM prepaid.task_assignments ORDER BY assignment_id"
    ) == [(bob, "on holiday", ann), (None, None, bob)]
    assert world.rows(
        "SELECT before, after, actor FROM prepaid.audit_log WHERE event = 'task_reassigned'"
        " ORDER BY audit_id"
    ) == [(None, bob, ann), (bob, None, bob)]
    # Anybody of the team may still decide; then it is nobody's any more.
    decisions.reassign(world.engine, ann, [task], bob, None)
    assert decisions.decide(world.engine, ann, [task], "approve", None) == 1
    refused(ann, None, "it is Done")


@pytest.mark.parametrize("text", ["finance", "finance=x", "sales=a@b.c", "finance=a@b;finance=c@d"])
def test_leads_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SettingError, match=r"PREPAID_TEAM_LEADS: .* cannot be read"):
        load({"PREPAID_TEAM_LEADS": text})
    assert load({"PREPAID_TEAM_LEADS": "finance=a@b.c; customer_success=d@e.f"}).team_leads == {
        "finance": "a@b.c",
        "customer_success": "d@e.f",
    }
