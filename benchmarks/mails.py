"""Mails per second from the outbox to a mail server on this machine, each with its receipt as PDF.

``python -m benchmarks.mails [--mails 1000]`` prints the rates and the limits, and ends with 1 when
a limit is broken. Beside the sender, a plain loop sets the same receipts with Typst and hands the
same bytes to the same server with smtplib: no outbox, no database, no note of what happened.
"""

import argparse
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Engine, text

from benchmarks import databases, sides
from prepaid_pipeline.database import queries
from prepaid_pipeline.language import catalogue
from prepaid_pipeline.language.catalogue import Language
from prepaid_pipeline.mail import receipt
from prepaid_pipeline.mail.sender import send_emails
from prepaid_pipeline.settings.load import Settings, load

LOWEST_RATE, LOWEST_RATIO = 150, 0.75
_SELLER = ("Example Ltd", "1 High Street", "London", "VAT GB 123456789")


@dataclass(frozen=True)
class Measured:
    """Seconds for as many mails: the sender's, Typst's alone, and smtplib's alone."""

    mails: int
    sender: float
    receipts: float
    handing_over: float

    @property
    def rate(self) -> float:
        """The sender's mails per second."""
        return self.mails / self.sender

    @property
    def plain(self) -> float:
        """The plain loop's mails per second."""
        return self.mails / (self.receipts + self.handing_over)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0 if both limits hold, 1 if one is broken or a mail did not arrive."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mails", description=__doc__)
    parser.add_argument("--mails", type=int, default=1_000)
    mails = parser.parse_args(arguments).mails
    with databases.embedded_server() as url, databases.connected(url) as engine:
        _order(engine, mails)
        measured = _measure(engine, url, mails)
    print(f"{measured.mails} receipts set by Typst on one core: {measured.receipts:.1f} s")
    print(f"{measured.mails} mails over one connection, smtplib: {measured.handing_over:.1f} s")
    print(f"the sender, writing, storing and noting: {measured.sender:.1f} s")
    verdicts = limits(measured)
    for holds, sentence in verdicts:
        print(f"{'ok    ' if holds else 'BROKEN'}  {sentence}")
    return 0 if all(holds for holds, _ in verdicts) else 1


def limits(measured: Measured) -> list[tuple[bool, str]]:
    """Which limits hold, each with a sentence."""
    ratio = measured.rate / measured.plain
    return [
        (
            measured.rate >= LOWEST_RATE,
            f"{measured.rate:.0f} mails/s with receipts (at least {LOWEST_RATE})",
        ),
        (
            ratio >= LOWEST_RATIO,
            f"{ratio:.2f} of the plain loop's {measured.plain:.0f}/s (at least {LOWEST_RATIO})",
        ),
    ]


def _order(engine: Engine, mails: int) -> None:
    """As many activated plans, whose confirmations wait in the outbox."""
    sides.prepare(engine, mails)
    for job in sides.JOBS:
        sides.pipeline(engine, job)


def _measure(engine: Engine, url: URL, mails: int) -> Measured:
    with tempfile.TemporaryDirectory() as home, _sink() as port:
        settings = _settings(url, home, port)
        rows = _details(engine, settings, mails)
        started = time.perf_counter()
        result = send_emails(engine, settings, as_of=sides.AS_OF)
        sender = time.perf_counter() - started
        if result.sent != mails:
            raise SystemExit(f"{result.sent} of {mails} mails were sent: {result}")
        return Measured(
            mails,
            sender,
            _receipts(rows, catalogue.load(settings)),
            _handing_over(engine, port, mails),
        )


def _settings(url: URL, home: str, port: int) -> Settings:
    return load(
        {
            "PREPAID_HOME": home,
            "PREPAID_DATABASE_URL": url.render_as_string(hide_password=False),
            "PREPAID_SMTP_URL": f"smtp://127.0.0.1:{port}",
            "PREPAID_SELLER": ";".join(_SELLER),
        }
    )


def _details(engine: Engine, settings: Settings, mails: int) -> list[Mapping[str, Any]]:
    found = "SELECT email_id FROM prepaid.emails WHERE status = 'pending' ORDER BY 1 LIMIT :mails"
    with engine.connect() as connection:
        ids = list(connection.execute(text(found), {"mails": mails}).scalars())
        asked = {"email_ids": ids, "payment_days": settings.payment_days}
        details = queries.statement("mail/outbox", "details")
        return [dict(row) for row in details.execute(connection, asked).mappings()]


def _receipts(rows: list[Mapping[str, Any]], say: Language) -> float:
    receipt.compiled(receipt.page(rows[0], _SELLER, say), rows[0]["created_at"])
    started = time.perf_counter()
    for row in rows:
        receipt.compiled(receipt.page(row, _SELLER, say), row["created_at"])
    return time.perf_counter() - started


def _handing_over(engine: Engine, port: int, mails: int) -> float:
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT recipient, content FROM prepaid.emails"))
        contents = [(row.recipient, bytes(row.content)) for row in stored][:mails]
    started = time.perf_counter()
    with smtplib.SMTP("127.0.0.1", port) as server:
        for recipient, content in contents:
            server.sendmail("billing@localhost", [recipient], content)
    return time.perf_counter() - started


@contextmanager
def _sink() -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.sink"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()
        print(f"the server took {int(process.stdout.readline())} mails")


if __name__ == "__main__":
    sys.exit(main())
