"""Why a plan is what it is, in one or two sentences drawn from its story."""

from datetime import datetime
from typing import Any

from prepaid_pipeline.language.english import grouped, minute, words


def why(facts: Any, done: Any | None) -> str:
    """The answer to "why is this plan Active?", or Pending, or Cancelled.

    ``facts`` and ``done`` are rows of ``process/story``, parts ``why`` and ``done`` (None: the
    log has no such transition). The desk has its own for those who may read less: of a plan that
    does not wait, the activation's day and the payment records may be None. Moments are in UTC.
    """
    if facts.status in ("Active", "Expired"):
        said = _activated(facts, done)
    elif facts.status == "Cancelled":
        said = _cancelled(done)
    else:
        said = _waiting(facts)
    held = f" It is held: {words(facts.holds)}." if facts.holds else ""
    return grouped(f"{said}{held}")


def _activated(facts: Any, done: Any | None) -> str:
    if facts.origin == "imported":
        return (
            f"It is {facts.status} because it was imported as a term from {facts.start_date} to"
            f" {facts.end_date}: it has no invoice and no payment here."
        )
    until = f" Its term has ended on {facts.end_date}." if facts.status == "Expired" else ""
    kind = "new plan" if facts.kind == "new" else facts.kind
    when = f"on {facts.activated_on}" if facts.activated_on else f"at {_at(done and done.at)}"
    return (
        f"It is {facts.status} because {_paid(facts)}, and {_who(done)} activated it {when}"
        f" as a {kind} from {facts.start_date} to {facts.end_date}.{until}"
    )


def _paid(facts: Any) -> str:
    invoice = f"invoice {facts.invoice_number}"
    if facts.nothing_to_pay:
        return f"{invoice} left nothing to pay, so no payment had to be verified"
    if facts.invoice_status != "Paid":
        paid = f"{invoice} for {facts.payable} was paid at that time"
        return f"{paid}, and is now {facts.invoice_status}"
    by = f" by {facts.records}" if facts.records else ""
    return f"{invoice} for {facts.payable} was paid{by}, {_approved(facts)}"


def _approved(facts: Any) -> str:
    first = f", after {facts.first_approved_by}" if facts.first_approved_by else ""
    return f"which {facts.decided_by} verified at {_at(facts.decided_at)}{first}"


def _cancelled(done: Any | None) -> str:
    when = f" at {_at(done.at)}" if done else ""
    return f"It is Cancelled because {_who(done)} cancelled it{when}; the story says why."


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
    invoice = f"invoice {facts.invoice_number} for {facts.payable}"
    if missing:
        return f"It is {facts.status} because {invoice} waits for {' and for '.join(missing)}."
    return f"It is {facts.status}: {invoice} is cleared, and the next run activates it."


def _who(done: Any | None) -> str:
    if done is None:
        return "somebody"
    return f"{done.actor} in run {done.run_id}" if done.run_id else str(done.actor)


def _at(moment: datetime | None) -> str:
    return minute(moment) if moment else "an unknown time"
