"""Signing in and out."""

from contextlib import suppress
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse, Response

from prepaid_pipeline.desk.navigation import Site
from prepaid_pipeline.desk.visits import Visit
from prepaid_pipeline.errors import NotAllowed

_REFUSED = (
    "That did not work. Check the name and the password; after five wrong passwords an account is"
    " locked for a quarter of an hour."
)


def sign_in(visit: Visit) -> Response:
    """The form; whoever is already signed in is passed on."""
    where = own_path(visit.asked("next"), visit.desk.site)
    if visit.signed_in is not None:
        return RedirectResponse(where, 303)
    return visit.page("sign_in.html", where=where, name="")


def check_password(visit: Visit) -> Response:
    """Open a session, or say that it did not work, and never why."""
    name, where = visit.typed("name"), own_path(visit.typed("next"), visit.desk.site)
    # As it was typed: a password may begin with a blank.
    password = visit.form.get("password", "")
    if (
        not isinstance(password, str)
        or not 0 < len(password) <= 1024
        or not 0 < len(name) <= 63 * 4
    ):
        password = ""
    if visit.desk.sessions.check_password(name, password):
        # Other attempts at this very moment may have locked the account.
        with suppress(NotAllowed):
            return enter(visit, name, where)
    visit.said = {"text": _REFUSED, "kind": "refused", "note": ""}
    return visit.page("sign_in.html", 401, where=where, name=name)


def enter(visit: Visit, name: str, where: str) -> Response:
    """Start the session and go to the page that was asked for."""
    if visit.signed_in is not None:
        visit.desk.sessions.end(visit.signed_in)
    response = RedirectResponse(where, 303)
    visit.desk.sessions.open(name, response)
    return response


def sign_out(visit: Visit) -> Response:
    """End this session, or all of the person's."""
    everywhere = visit.typed("everywhere") == "yes"
    visit.desk.sessions.end(visit.person, everywhere)
    text = "You are signed out everywhere." if everywhere else "You are signed out."
    response = visit.go("/sign-in", text)
    response.delete_cookie(
        visit.desk.sessions.cookie, path="/", secure=visit.desk.desk.is_https, httponly=True
    )
    return response


def own_path(text: str, site: Site) -> str:
    """A path of this site; anything that could lead elsewhere is its start page."""
    parts = urlsplit(text)
    elsewhere = parts.scheme or parts.netloc or not text.startswith(f"{site.home}/")
    if elsewhere or text.startswith(("//", "/\\")):
        return f"{site.home}/"
    if not text.isprintable() or "\\" in text:
        return f"{site.home}/"
    return text
