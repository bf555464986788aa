"""A month that is closed is mailed, once per version and address."""

from collections.abc import Callable
from datetime import date
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.mail.sender import send_emails
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.report.content import versions
from prepaid_pipeline.settings.load import Settings, load
from tests.revenue.history import RUN, Term, insert, publish, rows
from tests.revenue.pages import write

D = date
BOARD, CFO = "board@example.com", "cfo@example.com"
MARCH, APRIL = D(2026, 3, 1), D(2026, 4, 1)
Close = Callable[..., list[str]]


@pytest.fixture
def close(engine: Engine) -> Close:
    """Compute and publish months as of a day; the mails that there are then."""

    def run(as_of: date, first: date = MARCH, last: date = MARCH, to: tuple[str, ...] = (BOARD,)):
        publish(engine, f"{first:%Y-%m}", f"{last:%Y-%m}", as_of)
        span = Span(first, last, as_of)
        versions.stage(engine, span, RUN)
        versions.publish(engine, span, RUN, 7, recipients=to)
        found = rows(
            engine, "SELECT template, occasion, recipient FROM prepaid.emails ORDER BY email_id"
        )
        assert {row[0] for row in found} <= {"monthly_report"}
        return [f"{row[1]} to {row[2]}" for row in found]

    return run


def test_once_per_version_and_address(engine: Engine, close: Close) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    both = (BOARD, CFO)
    assert close(D(2026, 4, 7), to=both) == [], "it is preliminary"
    first = ["2026-03 version 1 to board@example.com", "2026-03 version 1 to cfo@example.com"]
    assert close(D(2026, 4, 8), to=both) == first
    assert close(D(2026, 4, 9), to=both) == first
    insert(engine, [Term(D(2026, 3, 9), customer=2)])
    assert close(D(2026, 6, 20), to=both) == [
        *first,
        "2026-03 version 2 to board@example.com",
        "2026-03 version 2 to cfo@example.com",
    ]


def test_history_in_hindsight_is_no_news(engine: Engine, close: Close) -> None:
    """Of 15 months at once only the one that was closed last is mailed."""
    insert(engine, [Term(D(2026, 3, 5))])
    assert close(D(2026, 4, 20), D(2025, 1, 1), MARCH) == ["2026-03 version 1 to board@example.com"]
    insert(engine, [Term(D(2025, 6, 5), customer=2)])
    assert close(D(2026, 4, 21), D(2025, 1, 1), D(2026, 2, 1)) == [
        "2026-03 version 1 to board@example.com"
    ], "a month that nobody was told of has changed"


def test_who_is_added_later_gets_what_comes(engine: Engine, close: Close) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    close(D(2026, 4, 8))
    insert(engine, [Term(D(2026, 3, 9), customer=2)])
    assert close(D(2026, 5, 9), MARCH, APRIL, (BOARD, CFO))[1:] == [
        "2026-03 version 2 to board@example.com",
        "2026-04 version 1 to board@example.com",
        "2026-04 version 1 to cfo@example.com",
    ]


def test_nobody_to_tell(engine: Engine, close: Close) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    assert close(D(2026, 4, 8), to=()) == []


def sent(settings: Settings) -> list[EmailMessage]:
    files = sorted(settings.mail_directory.glob("*.eml"))
    found = [message_from_bytes(file.read_bytes(), policy=policy.default) for file in files]
    return [message for message in found if isinstance(message, EmailMessage)]


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def test_the_mail_says_how_the_month_went_and_has_the_report(
    engine: Engine, settings: Settings, close: Close, tmp_path: Path
) -> None:
    insert(engine, [Term(D(2026, 3, 5)), Term(D(2026, 3, 6), "1200", 12, customer=2)])
    close(D(2026, 4, 8), to=(BOARD, CFO))
    assert send_emails(engine, settings, as_of=D(2026, 4, 8)).sent == 2
    first, second = sent(settings)
    assert {first["To"], second["To"]} == {BOARD, CFO}
    assert first["Subject"] == "Revenue of March 2026: the report is closed"
    assert body(first, "plain").split("\n") == [
        "MRR is 110.00 USD; a month ago there was none. 2 new plans and 0 renewals began.",
        "",
        "The full report is attached as a PDF.",
        "",
    ]
    assert "<strong>110.00</strong> USD" in body(first, "html")
    (attached,) = first.iter_attachments()
    assert attached.get_filename() == "2026-03-report-v1.pdf"
    write(engine, tmp_path / "reports", D(2026, 4, 8))
    assert attached.get_content() == (tmp_path / "reports/2026-03/report-v1.pdf").read_bytes()


def test_a_correction_says_what_changed(engine: Engine, settings: Settings, close: Close) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    close(D(2026, 4, 8))
    insert(engine, [Term(D(2026, 3, 9), "2.50", customer=2)])
    close(D(2026, 5, 20))
    german = load(
        {
            "PREPAID_HOME": str(settings.home),
            "PREPAID_LOCALE": "de_DE",
            "PREPAID_DESK_URL": "https://desk.example.com/",
        }
    )
    send_emails(engine, german, as_of=D(2026, 5, 20))
    mail = next(m for m in sent(settings) if "Fassung" in m["Subject"])
    assert mail["Subject"] == "Umsatz im März 2026: Fassung 2 des Berichts"
    plain = body(mail, "plain")
    assert "Geändert seit Fassung 1: USD: MRR 10,00 → 12,50 (+2,50)" in plain
    assert "Warum: 1 Laufzeit importiert am" in plain
    assert "Im Netz: https://desk.example.com/reports/2026-03/report-v2.html" in plain


def test_a_mail_about_no_version_fails_alone(
    engine: Engine, settings: Settings, close: Close
) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO prepaid.emails (template, occasion, recipient)"
                " VALUES ('monthly_report', '2026-02 version 1', 'board@example.com')"
            )
        )
    close(D(2026, 4, 8))
    result = send_emails(engine, settings, as_of=D(2026, 4, 8))
    assert (result.sent, result.failed) == (1, 1)
    assert rows(engine, "SELECT last_error FROM prepaid.emails WHERE status = 'failed'") == [
        ("cannot be rendered: ValueError: there is no 2026-02 version 1 of the report",)
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ()),
        ("board@example.com", (BOARD,)),
        (" board@example.com, cfo@example.com ,board@example.com", (BOARD, CFO)),
    ],
)
def test_recipients(given: str, expected: tuple[str, ...]) -> None:
    assert load({"PREPAID_REPORT_RECIPIENTS": given}).report_recipients == expected


@pytest.mark.parametrize("given", ["board", "board@", "a b@example.com", "Board <b@example.com>"])
def test_recipients_that_cannot_be(given: str) -> None:
    with pytest.raises(
        SettingError, match=r"PREPAID_REPORT_RECIPIENTS: .* is not an email address"
    ):
        load({"PREPAID_REPORT_RECIPIENTS": given})
