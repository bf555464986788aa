"""prepaid mails: what has not reached the customers, and who may send it again."""

from collections.abc import Mapping

import pytest

from prepaid_pipeline.email.sender import SendResult, send_emails
from prepaid_pipeline.settings import Settings
from tests.cli.conftest import Prepaid
from tests.world import TODAY, World


@pytest.fixture
def confirmed(world: World) -> list[int]:
    """Three mails in the outbox; their ids."""
    world.tax_rate("0.0725")
    for _ in range(3):
        world.due_renewal()
    world.pay_and_approve(*world.open())
    world.settle()
    return [row[0] for row in world.rows("SELECT email_id FROM prepaid.emails ORDER BY 1")]


def mail(world: World, email_id: int) -> Mapping[str, object]:
    names = ("status", "message_id", "content", "attempts", "last_error")
    (row,) = world.rows(
        f"SELECT {', '.join(names)} FROM prepaid.emails WHERE email_id = :e",  # noqa: S608
        e=email_id,
    )
    return dict(zip(names, row, strict=True))


def fail(world: World, email_id: int) -> None:
    world.sql(
        "UPDATE prepaid.emails SET status = 'failed', attempts = 5, leased_until = NULL,"
        " last_error = '550 no such user', sent_at = NULL WHERE email_id = :e", e=email_id,
    )  # fmt: skip


def test_list(world: World, prepaid: Prepaid, confirmed: list[int]) -> None:
    first, second, third = confirmed
    fail(world, second)
    world.sql("UPDATE prepaid.emails SET status = 'dropped' WHERE email_id = :e", e=third)
    listed = prepaid("mails", "list").out.splitlines()
    assert listed[0].split()[:3] == ["mail", "template", "occasion"]
    assert [line.split()[0] for line in listed[1:]] == [str(second), str(first)]
    assert "550 no such user" in listed[1]
    assert "someone@example.com" in listed[1]
    (failed,) = prepaid("mails", "list", "--status", "failed", "--json").json()
    assert failed["email_id"] == second
    (dropped,) = prepaid("mails", "list", "--status", "dropped", "--json").json()
    assert dropped["email_id"] == third
    assert prepaid("mails", "list", "--status", "lost").code == 2


def test_sent_again_as_it_was(
    world: World, prepaid: Prepaid, settings: Settings, confirmed: list[int]
) -> None:
    assert send_emails(world.engine, settings, as_of=TODAY) == SendResult(sent=3)
    email_id = confirmed[0]
    written = {key: mail(world, email_id)[key] for key in ("message_id", "content")}
    fail(world, email_id)
    world.officer("mails_care", "customer_success")
    again = prepaid("mails", "resend", email_id, "--as", "mails_care")
    assert (again.code, again.out) == (0, "1 to be sent again, asked for by mails_care\n")
    assert mail(world, email_id) == written | {
        "status": "pending", "attempts": 0, "last_error": "550 no such user",
    }  # fmt: skip
    assert send_emails(world.engine, settings, as_of=TODAY) == SendResult(sent=1)
    assert mail(world, email_id) == written | {
        "status": "sent", "attempts": 1, "last_error": None,
    }  # fmt: skip
    assert world.rows(
        "SELECT before, after, actor FROM prepaid.audit_log WHERE event = 'email_pending'"
    ) == [("failed", "pending", "mails_care")]


def test_all_or_nothing_and_only_failed_ones(
    world: World, prepaid: Prepaid, confirmed: list[int]
) -> None:
    first, second, _ = confirmed
    fail(world, first)
    world.officer("mails_engineer", "engineering")
    refused = prepaid("mails", "resend", first, second, "--as", "mails_engineer")
    assert refused.code == 1
    assert f"mail {second} cannot be sent again: only failed ones can, and it is pending" in (
        refused.err
    )
    missing = prepaid("mails", "resend", first, 999, "--as", "mails_engineer")
    assert "mail 999 cannot be sent again: there is no such mail" in missing.err
    assert mail(world, first)["status"] == "failed"
    assert prepaid("mails", "resend", first, first, "--as", "mails_engineer").code == 0
    assert mail(world, first)["status"] == "pending"


def test_who_may_not(world: World, prepaid: Prepaid, confirmed: list[int]) -> None:
    fail(world, confirmed[0])
    for team in ("finance", "leadership"):
        world.officer(f"mails_{team}", team)
        refused = prepaid("mails", "resend", confirmed[0], "--as", f"mails_{team}")
        assert refused.code == 1
        assert "permission denied" in refused.err
    assert prepaid("mails", "resend", confirmed[0], "--as", "nobody_known").code == 1
    assert prepaid("mails", "resend", "--as", "mails_finance").code == 2
    assert mail(world, confirmed[0])["status"] == "failed"
