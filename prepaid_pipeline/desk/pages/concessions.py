"""Prices below the list: what somebody wants to give away, and finance's decision."""

from starlette.responses import RedirectResponse, Response

from prepaid_pipeline.desk.pages.lists import Filter, cut
from prepaid_pipeline.desk.pages.payments import record, seen, sentence
from prepaid_pipeline.desk.visits import Visit, one, rows
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.teams import Team

_SHOWS = ("overdue", "mine")


def concessions(visit: Visit) -> Response:
    """The prices that wait for finance, oldest first."""
    asked = Filter.of(visit, _SHOWS)
    with visit.acting() as connection:
        found = rows(connection, "desk/concessions", "list", asked.params(visit))
    shown, after = cut(found, "task_id")
    return visit.page("concessions.html", asked=asked, tasks=shown, after=after)


def concession(visit: Visit) -> Response:
    """One of them: what it costs and by list, who asked for it and why, and the decision."""
    task_id = visit.number("task")
    params = {"task": task_id, "team": Team.FINANCE}
    with visit.acting() as connection:
        return visit.page(
            "concession.html",
            task=one(connection, "desk/concessions", "one", params, f"price {task_id}"),
            decisions=rows(connection, "desk/decisions", "of_task", params),
            colleagues=rows(connection, "desk/decisions", "colleagues", params),
        )


def decide(visit: Visit) -> Response:
    """Approve or reject the price, as it was shown."""
    task_id = visit.number("task")
    decision = visit.typed("decision")
    try:
        record(visit, [task_id], [seen(visit)], decision, visit.typed("note") or None)
    except NotAllowed as error:
        return visit.go(
            f"/concessions/{task_id}", f"{sentence(error)}.", "refused", visit.typed("note")
        )
    with visit.acting() as connection:
        task = one(connection, "desk/concessions", "one", {"task": task_id}, f"price {task_id}")
    if task.first_approved_by and task.decision is None:
        return visit.go(
            "/concessions",
            "Your approval is recorded. It is above the limit: a second person in finance"
            " approves it next.",
        )
    then = (
        "the plan continues"
        if decision == "approved"
        else "the plan stays held until the price is changed or the plan is cancelled"
    )
    return visit.go("/concessions", f"Price {decision}: {then}.")


def moved(visit: Visit) -> Response:
    """A form's address that was reloaded or bookmarked leads to the page with the form."""
    return RedirectResponse(f"/concessions/{visit.number('task')}", 303)
