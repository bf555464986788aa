"""Passing several quality checks at once: each with its features, then the one confirmation."""

from starlette.responses import RedirectResponse, Response

from prepaid_pipeline.desk.pages.choices import chosen, seen_tasks
from prepaid_pipeline.desk.pages.payments import record, sentence
from prepaid_pipeline.desk.visits import Visit, rows
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.language.english import plural


def confirm(visit: Visit) -> Response:
    """The page that lists the checks about to be passed, and asks. Changes nothing."""
    tasks = chosen(visit)
    with visit.acting() as connection:
        found = rows(connection, "desk/quality", "to_pass", {"tasks": tasks})
    if not found:
        return visit.go("/quality", "Choose at least one open check first.", "info")
    return visit.page(
        "pass.html",
        tasks=found,
        left_out=len(tasks) - len(found),
        pairs=",".join(f"{task.task_id}:{task.seen}" for task in found),
    )


def passed(visit: Visit) -> Response:
    """Pass what the confirmation page showed: all of it, or nothing."""
    try:
        tasks, seen = seen_tasks(visit.typed("tasks"))
        recorded = record(visit, tasks, seen, "passed", visit.typed("note") or None)
    except NotAllowed as error:
        return visit.go("/quality", f"{sentence(error)}. Look at the list again.", "refused")
    return visit.go("/quality", f"{plural(recorded, 'check')} passed.")


def to_list(visit: Visit) -> Response:  # noqa: ARG001
    """The form's address, reloaded or bookmarked: back to the list."""
    return RedirectResponse("/quality", 303)
