"""Parked payments and refunds: what finance clears up in addition to the payments that agree."""

from collections import defaultdict

from starlette.responses import Response

from prepaid_pipeline.database import queries
from prepaid_pipeline.desk.pages.lists import Filter, cut
from prepaid_pipeline.desk.pages.payments import note_with_evidence, record, seen, sentence
from prepaid_pipeline.desk.visits import Visit, one, rows
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.teams import Team

_SHOWS = ("overdue", "mine")


def parked(visit: Visit) -> Response:
    """Payments that fit no invoice, oldest first, with the invoices they may be meant for."""
    asked = Filter.of(visit, _SHOWS)
    with visit.acting() as connection:
        shown, after = cut(rows(connection, "desk/parked", "list", asked.params(visit)), "task_id")
        records = {"records": [task.transaction_id for task in shown]}
        meant = defaultdict(list)
        for suggestion in rows(connection, "desk/parked", "suggestions", records):
            meant[suggestion.transaction_id].append(suggestion)
    return visit.page("parked.html", asked=asked, tasks=shown, after=after, meant=meant)


def parked_payment(visit: Visit) -> Response:
    """One parked payment: why, and what can be done about it from here."""
    task_id = visit.number("task")
    params = {"task": task_id, "team": Team.FINANCE}
    with visit.acting() as connection:
        return visit.page(
            "parked_payment.html",
            task=one(connection, "desk/parked", "one", params, f"parked payment {task_id}"),
            decisions=rows(connection, "desk/decisions", "of_task", params),
            colleagues=rows(connection, "desk/decisions", "colleagues", params),
        )


def assign(visit: Visit) -> Response:
    """Say which open invoice the parked record pays."""
    task_id = visit.number("task")
    number = visit.typed("invoice_number")
    here = f"/parked/{task_id}"
    try:
        with visit.acting() as connection:
            task = one(
                connection, "desk/parked", "one", {"task": task_id}, f"parked payment {task_id}"
            )
            params = {
                "record": task.transaction_id,
                "invoice_number": number.upper(),
                "note": visit.typed("note"),
            }
            queries.statement("desk/parked", "assign").execute(connection, params)
    except NotAllowed as error:
        return visit.go(here, f"{sentence(error)}.", "refused", visit.typed("note"))
    return visit.go(
        "/parked",
        f"The payment is assigned to invoice {number.upper()}. Once it is matched, somebody else in"
        " finance verifies it.",
    )


def close(visit: Visit) -> Response:
    """Close a parked payment or a refund: approved when it was dealt with, rejected when not."""
    task_id = visit.number("task")
    place = "refunds" if visit.request.url.path.startswith("/refunds") else "parked"
    decision = visit.typed("decision")
    note = note_with_evidence(visit.typed("note"), visit.typed("evidence"))
    try:
        if place == "parked" and not note:
            raise NotAllowed("say what was done about the payment: nothing was recorded")
        recorded = record(visit, [task_id], [seen(visit)], decision, note)
    except NotAllowed as error:
        return visit.go(
            f"/{place}/{task_id}", f"{sentence(error)}.", "refused", visit.typed("note")
        )
    said = (
        f"Task {task_id} is {decision}." if recorded else f"Task {task_id} was already {decision}."
    )
    return visit.go(f"/{place}", said)


def refunds(visit: Visit) -> Response:
    """What is to be refunded to customers, oldest first."""
    asked = Filter.of(visit, _SHOWS)
    with visit.acting() as connection:
        found = rows(connection, "desk/parked", "refunds", asked.params(visit))
    shown, after = cut(found, "task_id")
    return visit.page("refunds.html", asked=asked, tasks=shown, after=after)


def refund(visit: Visit) -> Response:
    """One refund: the credit note and who approves it."""
    task_id = visit.number("task")
    params = {"task": task_id, "team": Team.FINANCE}
    with visit.acting() as connection:
        return visit.page(
            "refund.html",
            task=one(connection, "desk/parked", "refund", params, f"refund task {task_id}"),
            decisions=rows(connection, "desk/decisions", "of_task", params),
            colleagues=rows(connection, "desk/decisions", "colleagues", params),
        )
