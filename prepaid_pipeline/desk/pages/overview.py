"""What waits for the person's teams, since when, and how long sign-offs take."""

from collections.abc import Sequence

from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from prepaid_pipeline.billing import dunning
from prepaid_pipeline.billing.dunning import SilentSource
from prepaid_pipeline.context import Context
from prepaid_pipeline.desk.navigation import ON_FEATURES
from prepaid_pipeline.desk.visits import Visit, rows
from prepaid_pipeline.teams import Team

_TITLES = {
    "payment_verification": "Payments to verify",
    "payment_review": "Parked payments",
    "payment_refund": "Refunds to pay",
    "price_concession": "Prices to approve",
    "quality_check": "Quality checks",
    "quality_follow_up": "Follow-ups",
}
_PLACES = {
    "payment_verification": "/payments",
    "payment_review": "/parked",
    "payment_refund": "/refunds",
    "price_concession": "/concessions",
    "quality_check": "/quality",
    "quality_follow_up": "/quality?show=follow_up",
}
_TASK = {kind: place.partition("?")[0] for kind, place in _PLACES.items()}
_OF_TEAM = {
    Team.FINANCE: (
        "payment_verification",
        "payment_review",
        "payment_refund",
        "price_concession",
    ),
    Team.CUSTOMER_SUCCESS: ("quality_check", "quality_follow_up"),
}


def overview(visit: Visit) -> Response:
    """The start page. Leadership has nothing to decide: their start is the reports."""
    teams = visit.person.teams
    if set(teams) == {Team.LEADERSHIP}:
        return RedirectResponse("/reports", 303)
    of_all = Team.ENGINEERING in teams
    kinds = [kind for team, kinds in _OF_TEAM.items() for kind in kinds if of_all or team in teams]
    with visit.acting() as connection:
        waiting = {row.kind: row for row in rows(connection, "desk/overview", "waiting", {})}
        (held,) = rows(connection, "desk/overview", "held", {})
        mails = rows(connection, "desk/mails", "count", {}) if _sees_mails(teams) else []
        times = rows(connection, "desk/overview", "times", {"today": visit.today})
        oldest = rows(connection, "desk/overview", "oldest", {"kinds": kinds})
        silent = _silent(visit, connection)
    cards = [
        {"title": _TITLES[kind], "href": _PLACES[kind], "row": waiting.get(kind)} for kind in kinds
    ]
    return visit.page(
        "overview.html",
        cards=cards,
        held=held,
        mails=mails,
        times=times,
        oldest=oldest,
        places=_TASK,
        silent=silent,
    )


def _silent(visit: Visit, connection: Connection) -> list[SilentSource]:
    """What keeps customers from being reminded; for those who may read payment records."""
    if not {Team.FINANCE, Team.ENGINEERING} & set(visit.person.teams):
        return []
    return dunning.silent(connection, Context.of(visit.desk.settings, visit.today))


def _sees_mails(teams: Sequence[str]) -> bool:
    return bool(set(ON_FEATURES) & set(teams))
