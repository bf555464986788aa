"""One request of one person: what pages read, what forms do, and how they answer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from itsdangerous import BadSignature, URLSafeTimedSerializer
from jinja2 import Environment
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import acting_as, notices, refusal
from prepaid_pipeline.desk.guards import FIELD, FormTokens
from prepaid_pipeline.desk.navigation import Site
from prepaid_pipeline.desk.sessions import Person, Sessions
from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.settings.desk import DeskSettings
from prepaid_pipeline.settings.load import Settings

_MESSAGE_COOKIE = "desk_message"
_NO_MESSAGE = {"text": "", "kind": "info", "note": ""}
_MESSAGE_SECONDS = 60
# A cookie has 4 KB; a note that was refused comes back in it.
_NOTE_LENGTH = 600


@dataclass(frozen=True)
class Desk:
    """What all requests share: the database, the settings and the sessions."""

    engine: Engine
    settings: Settings
    desk: DeskSettings
    sessions: Sessions
    tokens: FormTokens
    messages: URLSafeTimedSerializer
    templates: Environment
    site: Site


@dataclass
class Visit:
    """One request, and who sends it. ``form`` is empty unless a form was sent."""

    desk: Desk
    request: Request
    form: FormData
    signed_in: Person | None
    # What a form token of this visitor is bound to.
    binding: str = ""
    said: dict[str, str] = field(default_factory=dict)
    # What else the database said about what was done.
    remarks: list[str] = field(default_factory=list)

    @property
    def person(self) -> Person:
        """The person; only handlers that need a sign-in ask."""
        assert self.signed_in is not None
        return self.signed_in

    @property
    def today(self) -> date:
        return self.desk.settings.today()

    @contextmanager
    def acting(self) -> Iterator[Connection]:
        """A transaction under the person's own role; NotAllowed in the database's own words."""
        try:
            with (
                acting_as(self.desk.engine, self.person.name, self.today) as connection,
                notices(connection) as told,
            ):
                # A filter that is off must not cost anything: no plan for all values of it.
                queries.statement("desk/sessions", "plan_anew").execute(connection, {})
                yield connection
                self.remarks += told
        except DBAPIError as error:
            raise refusal(error) from error

    def number(self, name: str) -> int:
        """A number in the path, such as the task's. Raises UnknownThing for what is too large."""
        value = int(self.request.path_params[name])
        if value > 2**63 - 1:
            raise UnknownThing(f"there is no {name} {value}")
        return value

    def asked(self, name: str) -> str:
        """A word of the query, without blanks around it; empty when it is not there."""
        return clean(self.request.query_params.get(name, ""))

    def typed(self, name: str) -> str:
        """A field of the form, without blanks around it; empty when it is not there."""
        value = self.form.get(name, "")
        return clean(value) if isinstance(value, str) else ""

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page; the message that the action before left is shown on it, once."""
        told = self.said or self._left_message()
        context = {
            "visit": self,
            "site": self.desk.site,
            "person": self.signed_in,
            "path": self.request.url.path,
            "today": self.today,
            "token_field": FIELD,
            "token": self.desk.tokens.make(self.binding),
            "message": told,
            **values,
        }
        text = self.desk.templates.get_template(template).render(context)
        response = HTMLResponse(text, status_code=status)
        if self._cookie in self.request.cookies:
            response.delete_cookie(
                self._cookie, path="/", secure=self.desk.desk.is_https, httponly=True
            )
        return response

    def go(self, path: str, text: str, kind: str = "done", note: str = "") -> Response:
        """Answer a form by sending the browser to a page that says ``text`` (post, redirect, get).

        ``kind`` is done, refused or info. A refused form's ``note`` is put back.
        """
        response = RedirectResponse(self.desk.site.home + path, status_code=303)
        text = " ".join([text, *(f"{said[:1].upper()}{said[1:]}." for said in self.remarks)])
        message = {"text": text[:1000], "kind": kind, "note": note[:_NOTE_LENGTH]}
        response.set_cookie(
            self._cookie,
            self.desk.messages.dumps(message),
            max_age=_MESSAGE_SECONDS,
            path="/",
            secure=self.desk.desk.is_https,
            httponly=True,
            samesite="lax",
        )
        return response

    @property
    def _cookie(self) -> str:
        return self.desk.desk.cookie(_MESSAGE_COOKIE)

    def _left_message(self) -> dict[str, str]:
        raw = self.request.cookies.get(self._cookie)
        if raw:
            try:
                loaded = self.desk.messages.loads(raw, max_age=_MESSAGE_SECONDS)
            except BadSignature:
                return _NO_MESSAGE
            if isinstance(loaded, dict):
                return _NO_MESSAGE | loaded
        return _NO_MESSAGE


def clean(text: str) -> str:
    """The text without blanks around it; PostgreSQL takes no NUL, and lines end as everywhere."""
    return text.replace("\0", "").replace("\r\n", "\n").strip()


def rows(connection: Connection, sql: str, part: str, params: Mapping[str, Any]) -> list[Any]:
    """All rows of a part of ``sql/<sql>.sql``."""
    return list(queries.statement(sql, part).execute(connection, params))


def one(connection: Connection, sql: str, part: str, params: Mapping[str, Any], what: str) -> Any:
    """The row of a part of ``sql/<sql>.sql``. Raises UnknownThing: there is no ``what``."""
    row = queries.statement(sql, part).execute(connection, params).one_or_none()
    if row is None:
        raise UnknownThing(f"There is no {what}, or it is no longer shown.")
    return row
