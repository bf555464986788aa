"""The history of decisions."""

from starlette.responses import Response

from prepaid_pipeline.desk.pages.lists import Filter, cut
from prepaid_pipeline.desk.visits import Visit, rows

_DECISIONS = ("approved", "rejected", "passed", "failed")


def history(visit: Visit) -> Response:
    """Every decision of the person's teams, latest first."""
    asked = Filter.of(visit, _DECISIONS)
    params = {**asked.params(visit), "decision": asked.show or None, "before": asked.after or None}
    with visit.acting() as connection:
        found = rows(connection, "desk/decisions", "list", params)
    shown, after = cut(found, "sign_off_id")
    return visit.page("history.html", asked=asked, decisions=shown, after=after)
