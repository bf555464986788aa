"""One-time sign-in links, for whoever starts the pipeline while nobody has a password yet."""

import getpass
import secrets
from urllib.parse import urlsplit

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from starlette.responses import RedirectResponse, Response

from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import refusal
from prepaid_pipeline.desk.routing import trouble
from prepaid_pipeline.desk.sessions import digest
from prepaid_pipeline.desk.visits import Visit
from prepaid_pipeline.operations.dagster_ui.visitors import UiSessions
from prepaid_pipeline.settings.desk import DeskSettings
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.settings.parsers import is_loopback

_SQL = "operations/dagster_ui"
# A working day: the window in which it is printed is there for as long.
HOURS = 12
_USED = (
    "This link was used, is too old, or somebody has a password by now. While nobody has,"
    " 'prepaid sign-in-link' prints a new one."
)


def make(engine: Engine, settings: Settings, desk: DeskSettings) -> str | None:
    """A link that opens Dagster's UI once, on this machine, for an operator who may change things.

    None where people sign in: somebody has a password, there is a sign-in provider, or others can
    reach the UI. ``engine`` is the owner's: NotAllowed for others.
    """
    if desk.oidc_issuer is not None or not is_loopback(urlsplit(settings.ui_url).hostname or ""):
        return None
    link = secrets.token_urlsafe(24)
    asked = {
        "link_hash": digest(link),
        "operator": f"operator {getpass.getuser()}",
        "hours": HOURS,
    }
    try:
        with engine.begin() as connection:
            made = queries.statement(_SQL, "make_link").execute(connection, asked).one_or_none()
    except DBAPIError as error:
        raise refusal(error) from error
    return None if made is None else f"{settings.ui_url}/sign-in/{link}"


def enter(visit: Visit) -> Response:
    """Open the session of the link, and go to Dagster's start page."""
    sessions = visit.desk.sessions
    assert isinstance(sessions, UiSessions)
    response = RedirectResponse(f"{visit.desk.site.home}/", 303)
    if sessions.open_by_link(visit.request.path_params["link"], response):
        return response
    return trouble(visit, 403, "Not signed in", _USED)
