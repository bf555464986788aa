"""Why a plan is what it is, in one or two sentences drawn from its story."""

from datetime import UTC, datetime
from typing import Any


def why(facts: Any) -> str:
    """The answer to "why is this plan Active?", or Pending, or Cancelled.

    ``facts`` is the row of ``cli/story``, statement ``why``. Moments are in UTC.
    """
    said = {
        "Active": _activated,
        "Expired": _activated,
        "Cancelled": _cancelled,
    }.get(facts.status, _waiting)(facts)
    held = f" It is held: {facts.holds}." if facts.holds else ""
    return f"{said}{held}"


def _activated(facts: Any) -> str:
    if facts.origin == "imported":
        return (
            f"It is {facts.status} because it was imported as a term from {facts.start_date} to"
            f" {facts.end_date}: it has no invoice and no payment here."
        )
    until = f" Its term has ended on {facts.end_date}." if facts.status == "Expired" else ""
    return (
        f"It is {facts.status} because {_paid(facts)}, and {_who(facts)} activated it on"
        f" {facts.activated_on} as a {facts.kind} from {facts.start_date} to {facts.end_date}."
        f"{until}"
    )


def _paid(facts: Any) -> str:
    invoice = f"invoice {facts.invoice_number}"
    if facts.nothing_to_pay:
        return f"{invoice} leaves nothing to pay, so that no payment had to be verified"
    if facts.invoice_status != "Paid":
        return (
            f"{invoice} over {facts.payable} was paid at that time, and is {facts.invoice_status}"
        )
    return f"{invoice} over {facts.payable} was paid by {facts.records}, {_approved(facts)}"


def _approved(facts: Any) -> str:
    first = f", after {facts.first_approved_by}" if facts.first_approved_by else ""
    return f"which {facts.decided_by} verified at {_at(facts.decided_at)}{first}"


def _cancelled(facts: Any) -> str:
    when = f" at {_at(facts.done_at)}" if facts.done_at else ""
    return f"It is Cancelled because {_who(facts)} cancelled it{when}; the story says why."


def _waiting(facts: Any) -> str:
    if facts.invoice_number is None:
        return f"It is {facts.status} because it is not invoiced yet."
    missing = []
    if not facts.nothing_to_pay:
        if not facts.records:
            missing.append("a payment record that matches")
        if facts.decision == "rejected":
            missing.append(f"a new payment: {facts.decided_by} rejected this one")
        elif facts.decision != "approved":
            seconded = f" ({facts.first_approved_by} has approved first)"
            missing.append(f"finance's approval{seconded if facts.first_approved_by else ''}")
    invoice = f"invoice {facts.invoice_number} over {facts.payable}"
    if missing:
        return f"It is {facts.status} because {invoice} waits for {' and for '.join(missing)}."
    return f"It is {facts.status}: {invoice} is cleared, and the next run activates it."


def _who(facts: Any) -> str:
    run = f" in run {facts.done_in}" if facts.done_in else ""
    return f"{facts.done_by or 'somebody'}{run}"


def _at(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment else "an unknown time"
