"""The monthly reports, as they were published."""

import re
from datetime import date
from itertools import groupby

from starlette.responses import RedirectResponse, Response

from prepaid_pipeline.desk.guards import POLICY, REPORT_POLICY
from prepaid_pipeline.desk.visits import Visit, rows
from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.settings.parsers import parse_month
from prepaid_pipeline.storage import Store

# How the files of a report end, what they are called and what they are.
_TYPES = {
    "html": ("page", "text/html"),
    "pdf": ("PDF", "application/pdf"),
    "xlsx": ("Excel", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "csv.zip": ("CSV", "application/zip"),
    "json": ("JSON", "application/json"),
}
_FILE = re.compile(r"report(?:-v(?P<version>[1-9][0-9]{0,8}))?\.(?P<ending>[a-z.]+)")


def reports(visit: Visit) -> Response:
    """All published months, latest first, each with its versions and the files of the latest."""
    with visit.acting() as connection:
        found = rows(connection, "desk/reports", "months", {})
    store = Store.of(visit.desk.settings)
    months = [
        {"month": month, "versions": list(of), "files": _files(store.listed(month), month)}
        for month, of in groupby(found, key=lambda row: row.month)
    ]
    return visit.page("reports.html", months=months)


def latest(visit: Visit) -> Response:
    """A month's address leads to its file: the links in a report are from file to file."""
    month = _month(visit)
    return RedirectResponse(f"/reports/{month:%Y-%m}/report.html", 303)


def index(visit: Visit) -> Response:  # noqa: ARG001
    """Redirects ``index.html``, which a report's page links to, to the list of reports."""
    return RedirectResponse("/reports", 303)


def report(visit: Visit) -> Response:
    """One file of one month, the latest version's or an earlier one's.

    The rows that this person may read decide which; any other file is not found.
    """
    month = _month(visit)
    name = str(visit.request.path_params["file"])
    asked = _FILE.fullmatch(name)
    with visit.acting() as connection:
        versions = [
            row.version
            for row in rows(connection, "desk/reports", "months", {})
            if row.month == month
        ]
    version = int(asked["version"]) if asked and asked["version"] else None
    unknown = version is not None and version not in versions
    if not asked or asked["ending"] not in _TYPES or not versions or unknown:
        raise UnknownThing(f"There is no published report of {month:%Y-%m} called {name}.")
    content = Store.of(visit.desk.settings).read(f"{month:%Y-%m}/{name}")
    if content is None:
        raise UnknownThing(
            f"The report of {month:%Y-%m} is published, but its file {name} is missing. 'prepaid"
            f" backfill {month:%Y-%m} {month:%Y-%m}' writes it again."
        )
    is_page = asked["ending"] == "html"
    headers = {"Content-Security-Policy": REPORT_POLICY if is_page else POLICY}
    if not is_page:
        headers["Content-Disposition"] = f'attachment; filename="{month:%Y-%m}-{name}"'
    return Response(content, media_type=_TYPES[asked["ending"]][1], headers=headers)


def _files(there: set[str], month: date) -> list[tuple[str, str]]:
    """The other formats of the latest version: label and file."""
    return [
        (label, f"report.{ending}")
        for ending, (label, _) in _TYPES.items()
        if ending != "html" and f"{month:%Y-%m}/report.{ending}" in there
    ]


def _month(visit: Visit) -> date:
    text = str(visit.request.path_params["month"])
    try:
        return parse_month(text)
    except ValueError:
        raise UnknownThing(f"{text} is not a month: expected YYYY-MM.") from None
