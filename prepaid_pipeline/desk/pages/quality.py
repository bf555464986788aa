"""Quality checks and follow-ups: the plan's features, passed or failed with what failed."""

from starlette.responses import Response

from prepaid_pipeline.database import queries
from prepaid_pipeline.desk.pages.lists import Filter, cut
from prepaid_pipeline.desk.pages.payments import record, seen, sentence
from prepaid_pipeline.desk.visits import Visit, clean, one, rows
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.teams import Team

SHOWS = ("follow_up", "overdue", "mine")


def checks(visit: Visit) -> Response:
    """The open checks, oldest first."""
    asked = Filter.of(visit, SHOWS)
    with visit.acting() as connection:
        waiting = [
            row
            for row in rows(connection, "desk/overview", "waiting", {})
            if row.team == Team.CUSTOMER_SUCCESS
        ]
        found = rows(connection, "desk/quality", "list", asked.params(visit))
    shown, after = cut(found, "task_id")
    return visit.page("checks.html", asked=asked, tasks=shown, after=after, waiting=waiting)


def check(visit: Visit) -> Response:
    """One check: which features to look at, and the decision."""
    task_id = visit.number("task")
    params = {"task": task_id, "team": Team.CUSTOMER_SUCCESS}
    with visit.acting() as connection:
        return visit.page(
            "check.html",
            task=one(connection, "desk/quality", "one", params, f"quality check {task_id}"),
            features=rows(connection, "desk/quality", "features", params),
            decisions=rows(connection, "desk/decisions", "of_task", params),
            colleagues=rows(connection, "desk/decisions", "colleagues", params),
        )


def decide(visit: Visit) -> Response:
    """Passed, or failed with what failed; then on to the next check."""
    task_id = visit.number("task")
    decision, note = visit.typed("decision"), visit.typed("note")
    failed = [clean(value) for value in visit.form.getlist("failed") if isinstance(value, str)]
    if failed and decision == "failed":
        note = f"{', '.join(failed)}: {note or 'not reachable'}"
    try:
        if failed and decision == "passed":
            raise NotAllowed("a check with a failed feature cannot pass: nothing was recorded")
        recorded = record(visit, [task_id], [seen(visit)], decision, note or None)
    except NotAllowed as error:
        return visit.go(
            f"/quality/{task_id}", f"{sentence(error)}.", "refused", visit.typed("note")
        )
    with visit.acting() as connection:
        following = queries.statement("desk/quality", "next").execute(connection, {"task": task_id})
        next_task = following.scalar_one()
    said = (
        f"Check {task_id} {decision}." if recorded else f"Check {task_id} had already {decision}."
    )
    return visit.go(f"/quality/{next_task}" if next_task else "/quality", said)
