"""Support's list of mails: sent again, settled, corrected, each under the person's own name."""

import re
from collections.abc import Callable

import pytest

from prepaid_pipeline.mail.sender import SendResult, send_emails
from prepaid_pipeline.settings.load import Settings
from tests.desk.conftest import Browser, form_token
from tests.desk.many import payments
from tests.desk.test_forms import message
from tests.world import TODAY, World

Browsers = Callable[..., Browser]


@pytest.fixture
def mails(world: World, settings: Settings) -> list[int]:
    """Three that were sent; the first failed, the second may have arrived."""
    plans = payments(world, 3)
    world.approve(*plans)
    world.settle()
    assert send_emails(world.engine, settings, as_of=TODAY) == SendResult(sent=3)
    ids = [row[0] for row in world.rows("SELECT email_id FROM prepaid.emails ORDER BY 1")]
    for email_id, status, unknown in ((ids[0], "failed", 0), (ids[1], "unknown", 2)):
        world.sql(
            "UPDATE prepaid.emails SET status = :s, unknown_attempts = :u, sent_at = NULL,"
            " last_error = '550 <script>no such user' WHERE email_id = :e",
            s=status,
            u=unknown,
            e=email_id,
        )
    return ids


def states(world: World) -> list[str]:
    return [row[0] for row in world.rows("SELECT status FROM prepaid.emails ORDER BY email_id")]


def test_the_list(browser: Browsers, mails: list[int]) -> None:
    care = browser("customer_success")
    page = care.get("/mails").text
    assert re.findall(r'href="/mails/(\d+)"', page) == [str(mails[0]), str(mails[1])]
    assert "550 &lt;script&gt;no such user" in page
    assert "May have arrived" in page
    assert "2<span> undelivered" in care.get("/").text
    assert len(re.findall(r'href="/mails/\d+"', care.get("/mails?show=unknown").text)) == 1
    assert "No undelivered email matches" in care.get("/mails", search="nobody").text
    assert care.get(f"/mails/{mails[2]}").status_code == 404
    assert "undelivered" not in browser("finance").get("/").text


def test_sent_again(world: World, settings: Settings, browser: Browsers, mails: list[int]) -> None:
    care = browser("customer_success")
    care.get("/mails")
    care.post("/mails/resend")
    assert message(care) == "Note. Choose at least one email first."
    care.post("/mails/resend", mail=[str(mail) for mail in mails])
    assert f"mail {mails[2]} cannot be sent again" in message(care).lower()
    assert "it is sent. Nothing was sent." in message(care)
    assert states(world) == ["failed", "unknown", "sent"]
    care.post("/mails/resend", mail=[str(mail) for mail in mails[:2]])
    assert message(care) == "Done. 2 emails will be sent again."
    assert "No undelivered email" in care.last.text
    assert send_emails(world.engine, settings, as_of=TODAY) == SendResult(sent=2)
    assert world.rows(
        "SELECT DISTINCT actor FROM prepaid.audit_log WHERE event = 'email_pending'"
    ) == [(care.name,)]


def test_settled(world: World, browser: Browsers, mails: list[int]) -> None:
    engineer = browser("engineering")
    for mail in mails[:2]:
        engineer.get(f"/mails/{mail}")
        engineer.post(f"/mails/{mail}/settle", note=" ")
        assert "needs a note" in message(engineer)
        engineer.post(f"/mails/{mail}/settle", note="told by phone")
        assert message(engineer) == f"Done. Email {mail} is settled."
    assert states(world) == ["dropped", "sent", "sent"]


def test_another_address(
    world: World, settings: Settings, browser: Browsers, mails: list[int]
) -> None:
    engineer, care = browser("engineering"), browser("customer_success")
    assert "/address" not in engineer.get(f"/mails/{mails[0]}").text
    assert "/address" not in care.get(f"/mails/{mails[1]}").text, "it may have arrived"
    token = form_token(engineer.get("/account"))
    sent = engineer.post(f"/mails/{mails[0]}/address", token=token, address="new@example.com")
    assert sent.status_code == 403
    care.get(f"/mails/{mails[0]}")
    care.post(f"/mails/{mails[0]}/address", address="nobody")
    assert "not a valid email address" in message(care)
    assert 'value="nobody"' in care.last.text
    care.post(f"/mails/{mails[1]}/address", address="new@example.com")
    assert "only failed ones can, and it is unknown" in message(care)
    care.get(f"/mails/{mails[0]}")
    care.post(f"/mails/{mails[0]}/address", address="new@example.com")
    assert message(care) == f"Done. Email {mails[0]} will go to new@example.com."
    assert send_emails(world.engine, settings, as_of=TODAY) == SendResult(sent=1)
    found = world.rows(
        "SELECT recipient, corrections FROM prepaid.emails ORDER BY email_id LIMIT 1"
    )
    assert found == [("new@example.com", 1)]
