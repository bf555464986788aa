"""Payments to verify: the list, and one payment with the provider's record next to its invoice."""

from typing import Any

from starlette.responses import RedirectResponse, Response

from prepaid_pipeline.database import queries
from prepaid_pipeline.desk.pages.lists import Filter, cut
from prepaid_pipeline.desk.visits import Visit, one, rows
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.language.english import grouped
from prepaid_pipeline.teams import Team

SHOWS = ("agree", "differ", "none", "second", "overdue", "mine")


def payments(visit: Visit) -> Response:
    """The open payments, oldest first."""
    asked = Filter.of(visit, SHOWS)
    with visit.acting() as connection:
        waiting = {row.kind: row for row in rows(connection, "desk/overview", "waiting", {})}
        found = rows(connection, "desk/payments", "list", asked.params(visit))
        currencies = [row.currency for row in rows(connection, "desk/payments", "currencies", {})]
    shown, after = cut(found, "task_id")
    return visit.page(
        "payments.html",
        asked=asked,
        tasks=shown,
        after=after,
        currencies=currencies,
        waiting=waiting.get("payment_verification"),
    )


def payment(visit: Visit) -> Response:
    """One payment: invoice and record side by side, in words what differs, and the decision."""
    task_id = visit.number("task")
    with visit.acting() as connection:
        task = one(connection, "desk/payments", "one", {"task": task_id}, f"payment task {task_id}")
        params = {"invoice_number": task.invoice_number, "task": task_id, "team": Team.FINANCE}
        return visit.page(
            "payment.html",
            task=task,
            lines=rows(connection, "desk/payments", "lines", params),
            records=rows(connection, "desk/payments", "records", params),
            decisions=rows(connection, "desk/decisions", "of_task", params),
            colleagues=rows(connection, "desk/decisions", "colleagues", params),
        )


def decide(visit: Visit) -> Response:
    """Approve or reject one payment, as it was shown."""
    task_id = visit.number("task")
    here = f"/payments/{task_id}"
    decision = visit.typed("decision")
    note = note_with_evidence(visit.typed("note"), visit.typed("evidence"))
    try:
        still = decision == "approved" and visit.typed("agreed") == "yes"
        recorded = record(visit, [task_id], [seen(visit)], decision, note, still)
    except NotAllowed as error:
        return visit.go(here, f"{sentence(error)}.", "refused", visit.typed("note"))
    with visit.acting() as connection:
        task = one(connection, "desk/payments", "one", {"task": task_id}, f"payment task {task_id}")
        following = queries.statement("desk/payments", "next").execute(
            connection, {"task": task_id}
        )
        next_task = following.scalar_one()
    if not recorded:
        return visit.go(here, f"You have already {decision} this payment.", "info")
    said = f"Payment of invoice {task.invoice_number} {decision}."
    if task.first_approved_by and not task.is_decided:
        said = (
            f"Your approval of invoice {task.invoice_number} is recorded. It is above the limit:"
            " a second person in finance approves it next."
        )
    return visit.go(
        f"/payments/{next_task}" if next_task and visit.typed("then") else "/payments", said
    )


def reassign(visit: Visit) -> Response:
    """Hand an open task of any kind to a colleague, or back to the team."""
    task_id = visit.number("task")
    person = visit.typed("person") or None
    back = visit.typed("back")
    params = {"tasks": [task_id], "person": person, "note": visit.typed("note") or None}
    places = ("payments", "parked", "refunds", "concessions", "quality")
    here = back if back in places else "payments"
    try:
        with visit.acting() as connection:
            queries.statement("desk/decisions", "reassign").execute(connection, params)
    except NotAllowed as error:
        return visit.go(f"/{here}/{task_id}", f"{sentence(error)}.", "refused")
    return visit.go(f"/{here}/{task_id}", f"The task is now with {person or 'the whole team'}.")


def moved(visit: Visit) -> Response:
    """A form's address that was reloaded or bookmarked leads to the page with the form."""
    return RedirectResponse(f"/payments/{visit.number('task')}", 303)


def seen(visit: Visit) -> int:
    """The latest sign-off that the page showed. Raises NotAllowed for a form that is not ours."""
    text = visit.typed("seen")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise NotAllowed("the form was not complete: nothing was recorded")
    return int(text)


def record(
    visit: Visit,
    tasks: list[int],
    seen: list[int],
    decision: str,
    note: str | None,
    agreeing_only: bool = False,
) -> int:
    """Have the database record a decision under the person's role; how many sign-offs it made."""
    params: dict[str, Any] = {
        "tasks": tasks,
        "seen": seen,
        "decision": decision,
        "note": note,
        "agreeing_only": agreeing_only,
    }
    with visit.acting() as connection:
        recorded = queries.statement("desk/decisions", "decide").execute(connection, params)
        return int(recorded.scalar_one())


def note_with_evidence(note: str, evidence: str) -> str | None:
    """One note of both; a reference to the evidence stands first."""
    parts = [f"evidence {evidence}" if evidence else "", note]
    return "; ".join(part for part in parts if part) or None


def sentence(error: Exception) -> str:
    """The error's text as the beginning of a sentence."""
    text = grouped(str(error).rstrip("."))
    return text[:1].upper() + text[1:]
