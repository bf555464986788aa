"""Writing the mails of a batch, on as many cores as there are: Typst needs no lock of Python's."""

import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prepaid_pipeline.addresses import recipient_address
from prepaid_pipeline.mail.outbox import Claim
from prepaid_pipeline.mail.render import write
from prepaid_pipeline.mail.smtp_connections import Mail, Outcome
from prepaid_pipeline.settings.load import Settings

_MOST_THREADS = 4
# Fewer than this are written sooner than another thread has read its fonts.
_WORTH_THREADS = 8

_log = logging.getLogger(__name__)


class Writers:
    """Threads that write mails; they start with the first batch that is worth it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(min(_MOST_THREADS, _cores()), "mail-writer")

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def write(self, claim: Claim) -> tuple[list[Mail], list[Outcome]]:
        """The mails of a claim, in its order, and those that cannot be written."""
        several = len(claim.unwritten) >= _WORTH_THREADS
        tried = (self._pool.map if several else map)(
            lambda row: self._mail(row, claim.unwritten.get(row["email_id"])), claim.mails
        )
        done = list(tried)
        return (
            [mail for mail in done if isinstance(mail, Mail)],
            [outcome for outcome in done if isinstance(outcome, Outcome)],
        )

    def _mail(self, row: Mapping[str, Any], details: Mapping[str, Any] | None) -> Mail | Outcome:
        email_id = row["email_id"]
        try:
            address = recipient_address(row["recipient"], None).addr_spec
            if details is None:
                name, content = row["message_id"], bytes(row["content"])
            else:
                message = write(details, self._settings)
                name, content = message.message_id, message.content
        except Exception as error:
            # Whatever is wrong with one email (its address, its template, its data) must not keep
            # the others in the outbox. What it is may name the customer: not in the log.
            _log.warning("email %s cannot be rendered: %s", email_id, type(error).__name__)
            text = f"cannot be rendered: {type(error).__name__}: {error}"
            return Outcome(email_id, "failed", text)
        return Mail(email_id, address, name, content, is_repeated=row["unknown_attempts"] > 0)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
