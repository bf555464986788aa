"""From a request to a handler: who is it, may they, is the form ours; and readable errors."""

import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import quote

from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from prepaid_pipeline.audit import seals
from prepaid_pipeline.desk.guards import FIELD, comes_from_elsewhere
from prepaid_pipeline.desk.navigation import Site
from prepaid_pipeline.desk.sessions import Person
from prepaid_pipeline.desk.visits import Desk, Visit
from prepaid_pipeline.errors import NotAllowed, UnknownThing

Handler = Callable[[Visit], Response]
# A file is never sent; a form has few fields, but the list of what is approved may be long.
_FIELDS, _FIELD_SIZE = 100, 256 * 1024


def page(path: str, handler: Handler, *teams: str, name: str | None = None) -> Route:
    """A page for people of ``teams`` (none: also for those who have not signed in)."""
    return Route(path, _endpoint(handler, teams), methods=["GET"], name=name)


def action(path: str, handler: Handler, *teams: str) -> Route:
    """A form for people of ``teams`` (none: also for those who have not signed in)."""
    return Route(path, _endpoint(handler, teams), methods=["POST"])


def _endpoint(handler: Handler, teams: tuple[str, ...]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.method != "POST":
            return await run_in_threadpool(_answer, request, FormData(), handler, teams)
        async with request.form(max_files=0, max_fields=_FIELDS, max_part_size=_FIELD_SIZE) as form:
            return await run_in_threadpool(_answer, request, form, handler, teams)

    return endpoint


def _answer(request: Request, form: FormData, handler: Handler, teams: tuple[str, ...]) -> Response:
    desk: Desk = request.app.state.desk
    visit = Visit(desk, request, form, None)
    try:
        visit.signed_in = desk.sessions.person(request)
        return _of_visitor(visit, handler, teams)
    except NotAllowed as error:
        return trouble(visit, 403, "That is not possible", str(error))
    except UnknownThing as error:
        return trouble(visit, 404, "Not found", str(error))
    except DBAPIError as error:
        if not (error.connection_invalidated or isinstance(error, OperationalError)):
            raise
        text = (
            "The database does not answer at the moment. What you sent last may or may not have"
            " been recorded: check its page before you try again."
        )
        return trouble(visit, 503, "Please try again in a moment", text)


def _of_visitor(visit: Visit, handler: Handler, teams: tuple[str, ...]) -> Response:
    request, person = visit.request, visit.signed_in
    if person is None and teams:
        return _to_sign_in(visit)
    # A visitor who has not signed in gets a random name, so that the sign-in form is theirs alone.
    cookie = visit.desk.desk.cookie("desk_visitor")
    visitor = request.cookies.get(cookie) or secrets.token_urlsafe(16)
    visit.binding = person.token_hash.hex() if person else visitor
    if person is not None and not _allowed(person, teams):
        return trouble(
            visit,
            403,
            "Not for your team",
            f"This page is for {_names(teams)}; you are in {_names(person.teams)}.",
        )
    if request.method == "POST":
        if comes_from_elsewhere(request):
            return trouble(
                visit, 403, "Refused", "This form was sent by another site. Nothing was done."
            )
        if not visit.desk.tokens.fits(visit.typed(FIELD), visit.binding):
            text = (
                "The page you sent this from has expired. Nothing was done; please try again here."
            )
            return trouble(visit, 403, "Please try again", text, again=request.url.path)
    response = handler(visit)
    if request.method == "POST" and person is not None:
        seals.seal_after(visit.desk.engine)
    if person is None and cookie not in request.cookies:
        response.set_cookie(
            cookie,
            visitor,
            path="/",
            secure=visit.desk.desk.is_https,
            httponly=True,
            samesite="lax",
        )
    return response


def _allowed(person: Person, teams: tuple[str, ...]) -> bool:
    return not teams or bool(set(teams) & set(person.teams))


def _to_sign_in(visit: Visit) -> Response:
    if visit.request.method == "POST":
        return visit.go(
            "/sign-in",
            "Your session has ended, and nothing was recorded. Sign in and try again.",
            "refused",
        )
    return to_sign_in(visit.request, visit.desk.site)


def to_sign_in(request: Request, site: Site) -> Response:
    """The way to the sign-in page, which then leads back."""
    path = request.url.path
    if query := request.url.query:
        path = f"{path}?{query}"
    back = f"?next={quote(path)}" if path != f"{site.home}/" else ""
    return RedirectResponse(f"{site.home}/sign-in{back}", 303)


def _names(teams: tuple[str, ...]) -> str:
    return " and ".join(team.replace("_", " ") for team in teams)


def handle_missing(request: Request, error: Exception) -> Response:
    """The page for an address that there is not."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    visit = anybodys(request)
    return trouble(visit, status, "Not found", "There is no page at this address.")


def handle_fault(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """The page for an error of ours; the log has it."""
    text = (
        "This is an error on our side, not yours. What you sent was not recorded. Your"
        " administrator will find the cause in the log of this process."
    )
    visit = anybodys(request)
    return trouble(visit, 500, "That did not work", text)


def anybodys(request: Request) -> Visit:
    """The visit of whoever sends this, signed in or not; of nobody if that cannot be found out."""
    desk: Desk = request.app.state.desk
    visit = Visit(desk, request, FormData(), None)
    # Whatever it is: the page that says what went wrong must not go wrong too.
    with suppress(Exception):
        visit.signed_in = desk.sessions.person(request)
    if visit.signed_in is not None:
        visit.binding = visit.signed_in.token_hash.hex()
    return visit


def trouble(visit: Visit, status: int, title: str, text: str, again: str | None = None) -> Response:
    """A page that says what went wrong and leads back."""
    visit.binding = visit.binding or "nobody"
    return visit.page(
        "trouble.html",
        status,
        title=title,
        text=text,
        again=again,
        phrase=HTTPStatus(status).phrase,
    )
