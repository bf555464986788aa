"""Who sends a request to Dagster's UI: a person with a session, or a program with the token."""

import binascii
import hmac
import secrets
from base64 import b64decode
from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from prepaid_pipeline.database import queries
from prepaid_pipeline.desk.sessions import Person, Sessions, digest
from prepaid_pipeline.teams import Team

_SQL = "operations/dagster_ui"
# In the scope of a request (ASGI): the visitor, once it is known who it is.
VISITOR = "prepaid.visitor"


@dataclass(frozen=True)
class Visitor:
    """``token_hash`` is that of the session; None for a program, which has none that could end."""

    name: str
    may_write: bool
    token_hash: bytes | None


class UiSessions(Sessions):
    """The desk's sessions and those of operators. A request from a page keeps one awake."""

    def person(self, request: Request) -> Person | None:
        return self.find(request, awake=True)

    def find(self, connection: HTTPConnection, *, awake: bool) -> Person | None:
        """Who sends this; only if ``awake`` does it count as a sign of life."""
        token = connection.cookies.get(self.cookie)
        return self.of(digest(token), awake=awake) if token else None

    def of(self, token_hash: bytes, *, awake: bool) -> Person | None:
        """Whose session it is; None when it has ended."""
        asked = {"token_hash": token_hash, "awake": awake}
        with self.engine.begin() as connection:
            row = queries.statement(_SQL, "session").execute(connection, asked).one_or_none()
        return None if row is None else Person(row.person, tuple(row.teams), token_hash)

    def end(self, person: Person, everywhere: bool = False) -> None:
        super().end(person, everywhere)
        with self.engine.begin() as connection:
            asked = {"token_hash": person.token_hash}
            queries.statement(_SQL, "end").execute(connection, asked)

    def open_by_link(self, link: str, response: Response) -> bool:
        """Open the session of a one-time link; False for one that is used, too old or nobody's."""
        token = secrets.token_urlsafe(32)
        asked = {
            "link_hash": digest(link),
            "token_hash": digest(token),
            "idle_seconds": 60 * self.settings.idle_minutes,
            "absolute_seconds": self.settings.absolute_seconds,
        }
        with self.engine.begin() as connection:
            opened = queries.statement(_SQL, "open").execute(connection, asked).scalar_one()
        if opened is None:
            return False
        self.give(token, response)
        return True


@dataclass(frozen=True)
class Visitors:
    """Finds out who sends a request. ``token`` is PREPAID_UI_TOKEN."""

    sessions: UiSessions
    token: str | None

    def find(self, connection: HTTPConnection, *, awake: bool) -> Visitor | None:
        """Who sends this; None for nobody. A wrong token is nobody's, with whatever cookie."""
        if (given := _given_token(connection)) is not None:
            return Visitor("token", True, None) if self._fits(given) else None
        person = self.sessions.find(connection, awake=awake)
        if person is None:
            return None
        return Visitor(person.name, Team.ENGINEERING in person.teams, person.token_hash)

    def is_still_in(self, visitor: Visitor) -> bool:
        """Whether the session of somebody who listens has not ended; asking does not prolong it."""
        if visitor.token_hash is None:
            return True
        return self.sessions.of(visitor.token_hash, awake=False) is not None

    def _fits(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())


def _given_token(connection: HTTPConnection) -> str | None:
    """The token of a program, in one of the ways that Dagster's clients and others can send it."""
    if (given := connection.headers.get("dagster-cloud-api-token")) is not None:
        return given
    header = connection.headers.get("authorization")
    if header is None:
        return None
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    # http://any:TOKEN@host, for what can be given an address and nothing else.
    try:
        return b64decode(rest, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
