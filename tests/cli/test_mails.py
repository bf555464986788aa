"""prepaid mails: what has not reached the customers, and who may send it again."""

from collections.abc import Mapping

import pytest

from prepaid_pipeline.mail.sender import SendResult, send_emails
from prepaid_pipeline.settings.load import Settings
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
        " last_error = '550 no such user', sent_at = NULL WHERE email_id = :e",
        e=email_id,
    )


def test_list(world: World, prepaid: Prepaid, confirmed: list[int]) -> None:
    first, second, third = confirmed
    fail(world, second)
    world.sql("UPDATE prepaid.emails SET status = 'dropped' WHERE email_id = :e", e=third)
    listed = prepaid("mails", "list").out.splitlines()
    assert listed[0].split()[:3] == ["email", "template", "occasion"]
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
    assert (again.code, again.out) == (0, "1 will be resent, requested by mails_care\n")
    assert mail(world, email_id) == written | {
        "status": "pending",
        "attempts": 0,
        "last_error": "550 no such user",
    }
    assert send_emails(world.engine, settings, as_of=TODAY) == SendResult(sent=1)
    assert mail(world, email_id) == written | {
        "status": "sent",
        "attempts": 1,
        "last_error": None,
    }
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
    assert f"mail {second} cannot be sent again: only failed and unknown ones can, and it is" in (
        refused.err
    )
    missing = prepaid("mails", "resend", first, 999, "--as", "mails_engineer")
    assert "email 999 cannot be sent again: there is no such email" in missing.err
    assert mail(world, first)["status"] == "failed"
    assert prepaid("mails", "resend", first, first, "--as", "mails_engineer").code == 0
    assert mail(world, first)["status"] == "pending"


def test_who_may_not(world: World, prepaid: Prepaid, confirmed: list[int]) -> None:
    fail(world, confirmed[0])
    for team in ("finance", "leadership"):
        world.officer(f"mails_{team}", team)
        refused = prepaid("mails", "resend", confirmed[0], "--as", f"mails_{team}")
        assert refused.code == 1
        assert f"mails_{team} may not resend emails: not in customer_success" in refused.err
    assert prepaid("mails", "resend", confirmed[0], "--as", "nobody_known").code == 1
    assert prepaid("mails", "resend", "--as", "mails_finance").code == 2
    assert mail(world, confirmed[0])["status"] == "failed"


def unknown(world: World, email_id: int) -> None:
    world.sql(
        "UPDATE prepaid.emails SET status = 'unknown', unknown_attempts = 2,"
        " last_error = 'too late' WHERE email_id = :e",
        e=email_id,
    )


def test_settled(world: World, prepaid: Prepaid, settings: Settings, confirmed: list[int]) -> None:
    send_emails(world.engine, settings, as_of=TODAY, limit=2)
    first, second, waiting = confirmed
    fail(world, first)
    world.sql(
        "UPDATE prepaid.emails SET sent_at = NULL, status = 'failed' WHERE email_id = :e", e=second
    )
    unknown(world, second)
    world.officer("mails_care", "customer_success")
    asked = ("mails", "settle", first, second, "--as", "mails_care", "--note", "told by phone")
    settled = prepaid(*asked)
    assert (settled.code, settled.out) == (0, "2 settled by mails_care\n")
    assert mail(world, first)["status"] == "dropped"
    assert mail(world, second)["status"] == "sent"
    assert mail(world, second)["last_error"] == "too late; settled by mails_care: told by phone"
    again = prepaid(*asked)
    assert "cannot be settled: only failed and unknown ones can, and it is dropped" in again.err
    assert prepaid("mails", "settle", waiting, "--as", "mails_care", "--note", " ").code == 1
    world.officer("mails_finance", "finance")
    assert prepaid("mails", "settle", first, "--as", "mails_finance", "--note", "x").code == 1
    events = (
        "SELECT event, before, actor FROM prepaid.audit_log WHERE actor = 'mails_care' ORDER BY 1"
    )
    assert world.rows(events) == [
        ("email_dropped", "failed", "mails_care"),
        ("email_sent", "unknown", "mails_care"),
    ]


def test_another_address(
    world: World, prepaid: Prepaid, settings: Settings, confirmed: list[int]
) -> None:
    send_emails(world.engine, settings, as_of=TODAY)
    first, second, _ = confirmed
    before = mail(world, first)
    fail(world, first)
    world.officer("mails_care", "customer_success")
    asked = ("mails", "readdress", first, "--as", "mails_care", "--to")
    assert prepaid(*asked, "nobody").code == 2
    assert (
        "only failed ones can, and it is sent"
        in prepaid(
            "mails", "readdress", second, "--as", "mails_care", "--to", "new@example.com"
        ).err
    )
    assert prepaid(*asked, "new@example.com").code == 0
    assert send_emails(world.engine, settings, as_of=TODAY) == SendResult(sent=1)
    after = mail(world, first)
    assert after["message_id"] != before["message_id"]
    assert b"new@example.com" in bytes(after["content"])  # type: ignore[arg-type]
    assert (
        world.sql(
            "SELECT c.email FROM prepaid.customers c JOIN prepaid.service_plans USING (customer_id)"
            " JOIN prepaid.emails e USING (service_plan_id) WHERE e.email_id = :e",
            e=first,
        )
        == "new@example.com"
    )
    # What an address was is nobody's business for ever: the log says only that it was corrected.
    logged = "SELECT count(*) FROM prepaid.audit_log WHERE event = 'email_address_corrected'"
    assert world.sql(logged) == 1
    told = "SELECT count(*) FROM prepaid.audit_log a WHERE a::text LIKE '%example.com%'"
    assert world.sql(told) == 0
