"""A business date after today: what cannot be taken back waits until a person says it is meant.

All is played in the year 2126: the database's own clock, by which it lets things be taken back, is
before all of these dates on whatever day the tests are run.
"""

import io
import os
import pty
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL

from prepaid_pipeline.cli import dates
from prepaid_pipeline.context import Context
from prepaid_pipeline.database import migrations
from prepaid_pipeline.process import window
from prepaid_pipeline.settings import load
from prepaid_pipeline.settings.load import Settings
from tests.cli.conftest import Outcome, Prepaid
from tests.world import World

TODAY = date(2126, 11, 2)
WRONG = "2136-11-02"
NOTHING = {"opened": 0, "settled": 0, "expired": 0, "reminded": 0, "cancelled_unpaid": 0}


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "today", lambda _: TODAY)


@pytest.fixture
def book(world: World) -> World:
    """A term that is due to be renewed, and one that runs for three more weeks."""
    world.tax_rate("0.0725")
    world.due_renewal(TODAY)
    world.due_renewal(TODAY + timedelta(days=21))
    return world


@pytest.fixture
def real(book: World, prepaid: Prepaid) -> World:
    """The same after a day's work: one renewal is invoiced and nobody has paid it."""
    done = prepaid("drain", "--json").json()
    assert (done["invoiced"], done["expired"], done["skipped"]) == (1, 1, {})
    return book


def done(outcome: Outcome) -> dict[str, int]:
    """What a drain did of what is refused in one way or another."""
    assert outcome.code == 0, outcome.err
    said = outcome.json()
    return {key: said[key] for key in NOTHING}


def statuses(world: World) -> list[str]:
    found = world.rows("SELECT status FROM prepaid.service_plans ORDER BY service_plan_id")
    return [status for (status,) in found]


def mails(world: World) -> list[tuple[str, str]]:
    return world.rows("SELECT template, status FROM prepaid.emails ORDER BY email_id")


def test_one_wrong_digit_changes_nothing(real: World, prepaid: Prepaid) -> None:
    before = real.dump()
    said = prepaid("drain", "--as-of", WRONG)
    assert (said.code, said.out.splitlines()) == (
        0,
        [
            "As of 2136-11-02:",
            "  skipped, the date is after today: 1 to expire",
            "  skipped, the date is after today: 1 to cancel, because nobody paid",
        ],
    )
    assert said.err == (
        "2136-11-02 is 3,653 days after today, 2126-11-02. If it is meant:"
        " --yes-this-is-date 2136-11-02\n"
    )
    assert real.dump() == before
    assert prepaid("drain", "--as-of", "2136-11-02", "--json").json()["skipped"] == {
        "opened": 0,
        "settled": 0,
        "expired": 1,
        "reminded": 0,
        "cancelled_unpaid": 1,
        "overdue_mails": 0,
    }


def test_a_near_day_opens_matches_and_settles(real: World, prepaid: Prepaid) -> None:
    """Three days on, a week of lead: only the reminder of that day waits for it."""
    (plan,) = real.plans()
    paid = real.subscription(real.customer(), real.plan(), started_on=TODAY)
    assert prepaid("drain").code == 0
    bought = real.sql(
        "SELECT service_plan_id FROM prepaid.service_plans WHERE subscription_id = :s", s=paid
    )
    real.record(real.invoice(bought), occurred_at="2126-11-02T10:00:00Z")
    real.match(Context(TODAY, 7, 7))
    real.approve(bought)
    real.subscription(real.customer(), real.plan(), started_on=TODAY + timedelta(days=10))
    said = prepaid("drain", "--as-of", "2126-11-05", "--json")
    assert done(said) == NOTHING | {"opened": 1, "settled": 1}
    assert said.json()["skipped"] == {
        "expired": 0,
        "reminded": 1,
        "cancelled_unpaid": 0,
        "overdue_mails": 0,
    }
    assert (real.status(plan), real.status(bought)) == ("Pending", "Active")


def test_beyond_the_lead_nothing_is_opened_or_activated(real: World, prepaid: Prepaid) -> None:
    (plan,) = real.plans()
    real.record(real.invoice(plan), occurred_at="2126-11-02T10:00:00Z")
    real.match(Context(TODAY, 7, 7))
    real.approve(plan)
    said = prepaid("drain", "--as-of", "2126-11-20", "--json")
    assert done(said) == NOTHING
    assert (said.json()["skipped"]["opened"], said.json()["skipped"]["settled"]) == (1, 1)
    assert real.rows("SELECT count(*) FROM prepaid.invoices") == [(1,)]


def test_what_is_meant_is_done_found_and_taken_back(real: World, prepaid: Prepaid) -> None:
    (plan,) = real.plans()
    number = real.invoice(plan)
    assert prepaid("check").code == 0
    meant = prepaid("drain", "--as-of", WRONG, "--yes-this-is-date", WRONG, "--json")
    assert done(meant) == NOTHING | {"expired": 1, "cancelled_unpaid": 1}
    assert statuses(real) == ["Expired", "Expired", "Cancelled"]
    assert mails(real) == [("unpaid_cancellation", "sent")]

    found = prepaid("check")
    assert found.code == 1
    assert (
        "service plan 2 is Expired, but its term runs until 2126-11-23; it expired for 2136-11-02:"
        " if that date was wrong, prepaid undo 2136-11-02" in found.out
    )

    assert prepaid("undo", "2126-11-02").err.startswith(
        "prepaid: 2126-11-02 is not after today, 2126-11-02"
    )
    undone = prepaid("undo", WRONG, "--json").json()
    assert undone == {
        "active_again": 1,
        "waiting_again": 1,
        "mails_dropped": 0,
        "left": [],
        "told": [
            {
                "template": "unpaid_cancellation",
                "invoice_number": number,
                "recipient": "someone@example.com",
                "status": "sent",
            }
        ],
    }
    # The first term had ended when it expired.
    assert statuses(real) == ["Expired", "Active", "Pending"]
    again = prepaid("undo", WRONG)
    assert (again.code, again.out) == (0, "Done for 2136-11-02:\n  nothing to take back\n")

    assert done(prepaid("drain", "--json")) == NOTHING
    assert real.invoice(plan) not in (None, number)
    assert prepaid("check").code == 0
    assert real.rows(
        "SELECT actor, after FROM prepaid.audit_log WHERE service_plan_id = 2 ORDER BY audit_id"
    ) == [("prepaid drain", "Expired"), ("prepaid undo", "Active")]
    # A cancellation on its own day is nobody's to take back.
    assert prepaid("story", plan).code == 0


def test_a_person_cancelling_later_is_not_undone(real: World, prepaid: Prepaid) -> None:
    (plan,) = real.plans()
    prepaid("drain", "--as-of", WRONG, "--yes-this-is-date", WRONG)
    prepaid("undo", WRONG)
    prepaid("user", "add", "dates_care", "--team", "customer_success")
    asked = ("--as", "dates_care", "--note", "moves")
    assert prepaid("subscriptions", "cancel", f"plan:{plan}", *asked).code == 0
    assert prepaid("undo", WRONG).out.endswith("nothing to take back\n")
    assert real.status(plan) == "Cancelled"


def test_what_cannot_go_back_stays(real: World, prepaid: Prepaid) -> None:
    """The subscription was cancelled meanwhile, so its plan is named and stays as it is."""
    prepaid("drain", "--as-of", WRONG, "--yes-this-is-date", WRONG)
    (plan,) = real.plans()
    real.sql("UPDATE prepaid.subscriptions SET cancelled_on = '2126-11-02'")
    assert f"stay cancelled (docs/calendar.md): plans {plan}" in prepaid("undo", WRONG).out
    assert real.status(plan) == "Cancelled"


def test_early_reminders_that_have_not_left_are_dropped(real: World, prepaid: Prepaid) -> None:
    (plan,) = real.plans()
    invoice = real.sql("SELECT invoice_id FROM prepaid.invoices")
    for day, status in ((3, "pending"), (7, "failed")):
        real.sql(
            "INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient,"
            " invoice_id, status) VALUES (:p, 'payment_reminder', :o, 'a@example.com', :i, :s)",
            p=plan,
            o=f"INV-2126-000001 day {day}",
            i=invoice,
            s=status,
        )
    assert prepaid("undo", WRONG, "--json").json()["mails_dropped"] == 1
    assert mails(real) == [("payment_reminder", "dropped"), ("payment_reminder", "failed")]


def test_another_date_is_not_the_one_that_is_meant(real: World, prepaid: Prepaid) -> None:
    before = real.dump()
    for arguments in (("--as-of", WRONG), ()):
        said = prepaid("drain", *arguments, "--yes-this-is-date", "2126-11-22")
        assert said.code == 2
        assert "--yes-this-is-date says 2126-11-22, but the business date is" in said.err
    assert real.dump() == before


@pytest.mark.parametrize(
    ("answer", "became"),
    [("y\n", ["Expired", "Expired", "Cancelled"]), ("n\n", ["Expired", "Active", "Pending"])],
)
def test_the_question(
    real: World,
    prepaid: Prepaid,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    became: list[str],
) -> None:
    monkeypatch.setattr(dates, "is_answered", lambda: True)
    monkeypatch.setattr("prepaid_pipeline.cli.process.is_answered", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    said = prepaid("drain", "--as-of", WRONG)
    assert "2136-11-02 is 3,653 days after today, 2126-11-02. What was skipped" in said.out
    assert (said.code, statuses(real)) == (0, became)


def test_the_question_on_a_terminal(
    world: World, database_url: URL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a person sees it, on the days of the real clock."""
    monkeypatch.undo()
    world.tax_rate("0.0725")
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    world.due_renewal(tomorrow + timedelta(days=200))
    world.sql("UPDATE prepaid.installation SET first_real_day = '2026-11-02'")
    there, here = pty.openpty()
    command = "from prepaid_pipeline.cli.main import main; main()"
    drain = ["-c", command, "drain", "--as-of", str(tomorrow + timedelta(days=400))]
    environ = os.environ | {
        "PREPAID_HOME": str(tmp_path),
        "PREPAID_DATABASE_URL": database_url.render_as_string(hide_password=False),
    }
    os.write(there, b"y\n")
    with subprocess.Popen(
        [sys.executable, *drain], stdin=here, stdout=here, stderr=here, env=environ
    ) as run:
        assert run.wait(120) == 0
    os.close(here)
    said = os.read(there, 100_000).decode()
    os.close(there)
    assert "days after today, " in said
    assert "What was skipped is hard to take back. Do it? [y/N]: " in said
    assert statuses(world) == ["Expired"]


def test_acts_that_cannot_be_taken_back(
    real: World, prepaid: Prepaid, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepaid("user", "add", "dates_clerk", "--team", "finance")
    asked = ("--as", "dates_clerk", "--note", "typed", "--as-of", WRONG)
    (plan,) = real.plans()
    number = real.invoice(plan)
    before = real.dump()
    for act in (("invoices", "void", number), ("invoices", "reissue", number)):
        said = prepaid(*act, *asked)
        assert said.code == 1
        assert said.err == (
            "prepaid: 2136-11-02 is after today, 2126-11-02: nothing was done. If it is meant:"
            " --yes-this-is-date 2136-11-02\n"
        )
    for act in ("cancel", "change"):
        new = ("--to", "plan-3") if act == "change" else ()
        assert prepaid("subscriptions", act, "S3", *new, *asked).code == 1
    assert real.dump() == before
    monkeypatch.setattr(dates, "is_answered", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert prepaid("invoices", "void", number, *asked).code == 1
    assert prepaid("invoices", "void", number, *asked, "--yes-this-is-date", WRONG).code == 0


def test_earlier_days_are_free(real: World, prepaid: Prepaid) -> None:
    said = prepaid("drain", "--as-of", "2126-10-01", "--json")
    assert (said.code, said.json()["skipped"]) == (0, {})


def test_days_that_were_all_given_have_no_window(book: World, prepaid: Prepaid) -> None:
    """Nothing is asked, and ``check`` takes the day for which a term expired as good as today."""
    for day, expected in (
        ("2126-11-02", {"opened": 1, "expired": 1}),
        ("2126-11-23", {"opened": 1, "expired": 1, "reminded": 1}),
        ("2130-01-01", {"cancelled_unpaid": 2}),
    ):
        said = prepaid("drain", "--as-of", day, "--json")
        assert done(said) == NOTHING | expected
        assert said.json()["skipped"] == {}
    assert "25_expired_terms_have_ended" not in [
        check["name"] for check in prepaid("check", "--json").json() if check["findings"]
    ]


@pytest.mark.parametrize("command", ["drain", "import"])
def test_what_makes_the_days_real(
    world: World, prepaid: Prepaid, tmp_path: Path, command: str
) -> None:
    (tmp_path / "tax_rates.csv").write_text("country,tax_class,rate,valid_from\n")
    folder = [tmp_path] if command == "import" else []
    asked = "SELECT first_real_day FROM prepaid.installation"
    prepaid(command, *folder, "--as-of", "2126-11-01")
    for reading in (("check",), ("due",), ("tasks", "list")):
        prepaid(*reading)
    assert world.sql(asked) is None
    assert prepaid(command, *folder).code == 0
    assert world.sql(asked) == TODAY


def test_today_is_where_the_database_counts(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            assert isinstance(tz, ZoneInfo)
            return datetime(2126, 11, 2, 11, tzinfo=UTC).astimezone(tz)

    monkeypatch.undo()
    monkeypatch.setattr(load, "datetime", Clock)
    migrations.write_timezone(world.engine, ZoneInfo("Pacific/Kiritimati"))
    assert settings.today() == TODAY
    assert window.look(world.engine, settings) == window.Window(
        date(2126, 11, 3), "Pacific/Kiritimati", real=False
    )
