"""Many tasks at once: which ones a page's form asked for, and which ones a person saw."""

from prepaid_pipeline.desk.visits import Visit
from prepaid_pipeline.errors import NotAllowed

# The list of tasks goes through the page: 5,000 are about 60 KB of it.
MOST = 5000


def chosen(visit: Visit) -> list[int]:
    """The tasks whose boxes were ticked."""
    texts = visit.request.query_params.getlist("task")
    return [int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < 19]


def seen_tasks(text: str) -> tuple[list[int], list[int]]:
    """Tasks, and the latest sign-off that was shown of each, from ``task:sign_off,…``.

    Raises NotAllowed for a form that is not ours, or asks for more than ``MOST``.
    """
    try:
        pairs = [tuple(int(part) for part in pair.split(":")) for pair in text.split(",")]
        tasks, seen = zip(*pairs, strict=True)
    except ValueError:
        raise NotAllowed("the form was not complete: nothing was recorded") from None
    if len(tasks) > MOST:
        raise NotAllowed(f"at most {MOST:,} tasks are decided at once: nothing was recorded")
    return list(tasks), list(seen)
