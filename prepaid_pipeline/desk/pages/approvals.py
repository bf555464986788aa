"""Approving many agreeing payments at once: what it will be, then the one confirmation."""

from collections import defaultdict
from decimal import Decimal
from typing import Any

from starlette.responses import RedirectResponse, Response

from prepaid_pipeline.desk.pages.choices import MOST, chosen, seen_tasks
from prepaid_pipeline.desk.pages.lists import Filter
from prepaid_pipeline.desk.pages.payments import SHOWS, record, sentence
from prepaid_pipeline.desk.visits import Visit, rows
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.language.english import count, plural

_SHOWN = 25


def confirm(visit: Visit) -> Response:
    """Count and total per currency of what is about to be approved. Changes nothing."""
    asked = Filter.of(visit, SHOWS)
    picked = None if visit.asked("all") else chosen(visit)
    if picked == []:
        return visit.go(asked.href("/payments"), "Choose at least one payment first.", "info")
    params = {**asked.params(visit), "tasks": picked, "rows": MOST + 1}
    with visit.acting() as connection:
        found = rows(connection, "desk/payments", "to_approve", params)
    if not found:
        text = (
            "You cannot approve any of these payments together. Decide those that differ one by"
            " one; the others need somebody else."
        )
        return visit.go(asked.href("/payments"), text, "info")
    tasks = found[:MOST]
    return visit.page(
        "confirm.html",
        asked=asked,
        tasks=tasks,
        shown=tasks[:_SHOWN],
        totals=_totals(tasks),
        first=sum(task.is_first for task in tasks),
        left_out=len(picked) - len(tasks) if picked is not None else 0,
        more=len(found) > MOST,
        pairs=",".join(f"{task.task_id}:{task.seen}" for task in tasks),
    )


def approve(visit: Visit) -> Response:
    """Approve what the confirmation page showed: all of it, or nothing."""
    try:
        tasks, seen = seen_tasks(visit.typed("tasks"))
        recorded = record(visit, tasks, seen, "approved", visit.typed("note") or None, True)
    except NotAllowed as error:
        return visit.go("/payments", f"{sentence(error)}. Look at the list again.", "refused")
    said = f"{plural(recorded, 'payment')} approved."
    first = visit.typed("first")
    if first.isascii() and first.isdigit() and len(first) < 19:
        said += f" Above the limit, and waiting for a second person: {count(int(first))}."
    return visit.go("/payments", said)


def to_list(visit: Visit) -> Response:  # noqa: ARG001
    """The form's address, reloaded or bookmarked: back to the list."""
    return RedirectResponse("/payments", 303)


def _totals(tasks: list[Any]) -> list[dict[str, Any]]:
    amounts: dict[str, list[Decimal]] = defaultdict(list)
    for task in tasks:
        amounts[task.currency].append(task.payable)
    return [
        {"currency": currency, "count": len(of), "total": sum(of)}
        for currency, of in sorted(amounts.items())
    ]
