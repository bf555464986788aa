"""The monthly reports, and the history of decisions."""

from datetime import date
from itertools import groupby

from starlette.responses import FileResponse, Response

from prepaid_pipeline.desk.guards import REPORT_POLICY
from prepaid_pipeline.desk.pages.lists import Filter, cut
from prepaid_pipeline.desk.visits import Visit, rows
from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.report.store import Store
from prepaid_pipeline.settings import parse_month

_DECISIONS = ("approved", "rejected", "passed", "failed")


def reports(visit: Visit) -> Response:
    """All published months, latest first, each with its versions."""
    with visit.acting() as connection:
        found = rows(connection, "reports", "months", {})
    months = [(month, list(of)) for month, of in groupby(found, key=lambda row: row.month)]
    return visit.page("reports.html", months=months)


def report(visit: Visit) -> Response:
    """One report as it was published: the latest version, or the one that is asked for.

    The rows that this person may read decide which; a file that lies about is not found.
    """
    month = _month(str(visit.request.path_params["month"]))
    version = visit.asked("version")
    with visit.acting() as connection:
        found = [
            row.version for row in rows(connection, "reports", "months", {}) if row.month == month
        ]
    if not found or (version and version not in {str(number) for number in found if number > 0}):
        raise UnknownThing(
            f"There is no published report of {month:%Y-%m}{version and ' version '}{version}."
        )
    path = Store.of(visit.desk.settings).path(month, "html", int(version) if version else None)
    if not path.is_file():
        raise UnknownThing(
            f"The report of {month:%Y-%m} is published, but its file is missing. 'prepaid report"
            f" {month:%Y-%m}' writes it again."
        )
    return FileResponse(
        path, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY}
    )


def history(visit: Visit) -> Response:
    """Every decision, latest first."""
    asked = Filter.of(visit, _DECISIONS)
    params = {
        **asked.params(visit), "decision": asked.show or None, "before": asked.after or None
    }  # fmt: skip
    with visit.acting() as connection:
        found = rows(connection, "decisions", "list", params)
    shown, after = cut(found, "sign_off_id")
    return visit.page("history.html", asked=asked, decisions=shown, after=after)


def _month(text: str) -> date:
    try:
        return parse_month(text)
    except ValueError:
        raise UnknownThing(f"{text} is no month: expected YYYY-MM.") from None
