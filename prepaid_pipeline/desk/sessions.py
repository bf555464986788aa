"""Sign-ins: a random token in a cookie, its hash in the database, where it can be ended."""

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response

from prepaid_pipeline.database import queries
from prepaid_pipeline.desk import passwords
from prepaid_pipeline.settings.desk import DeskSettings

_SQL = "desk/sessions"


@dataclass(frozen=True)
class Person:
    """Who is signed in, in which teams, and the hash of the token that says so."""

    name: str
    teams: tuple[str, ...]
    token_hash: bytes


@dataclass(frozen=True)
class Sessions:
    """Opens, finds and ends sign-ins."""

    engine: Engine
    settings: DeskSettings

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds the token."""
        return self.settings.cookie("desk")

    def check_password(self, name: str, password: str) -> bool:
        """Whether that person may sign in with that password; counts the failures."""
        with self.engine.begin() as connection:
            statement = queries.statement(_SQL, "account")
            account = statement.execute(connection, {"person": name}).one_or_none()
        open_to_try = account is not None and account.may_sign_in
        right = passwords.fits(password, account.password_hash if account else None)
        if open_to_try and right:
            return True
        if open_to_try:
            with self.engine.begin() as connection:
                queries.statement(_SQL, "failed").execute(connection, {"person": name})
        return False

    def may_sign_in(self, name: str) -> bool:
        """Whether there is such a person whose account is neither disabled nor locked."""
        with self.engine.begin() as connection:
            statement = queries.statement(_SQL, "account")
            account = statement.execute(connection, {"person": name}).one_or_none()
        return account is not None and bool(account.may_sign_in)

    def person_of(self, address: str) -> str | None:
        """The one person with this mail address; None if there is none, or several."""
        with self.engine.begin() as connection:
            statement = queries.statement(_SQL, "person_of")
            found = statement.execute(connection, {"address": address}).scalar_one()
        return None if found is None else str(found)

    def open(self, name: str, response: Response) -> None:
        """Sign a person in: a new token, so that one from before is worth nothing."""
        token = secrets.token_urlsafe(32)
        params = {
            "token_hash": digest(token),
            "person": name,
            "idle_seconds": 60 * self.settings.idle_minutes,
            "absolute_seconds": self.settings.absolute_seconds,
        }
        with self.engine.begin() as connection:
            queries.statement(_SQL, "open").execute(connection, params)
        self.give(token, response)

    def give(self, token: str, response: Response) -> None:
        """Let the browser keep the token of its session."""
        response.set_cookie(
            self.cookie,
            token,
            max_age=self.settings.absolute_seconds,
            path="/",
            secure=self.settings.is_https,
            httponly=True,
            # Lax, not strict: a link in a reminder's mail must find the person signed in.
            samesite="lax",
        )

    def person(self, request: Request) -> Person | None:
        """Who sends this request; None when the session has ended, or there never was one."""
        token = request.cookies.get(self.cookie)
        if not token:
            return None
        token_hash = digest(token)
        with self.engine.begin() as connection:
            statement = queries.statement(_SQL, "session")
            row = statement.execute(connection, {"token_hash": token_hash}).one_or_none()
        if row is None or row.person is None:
            return None
        return Person(row.person, tuple(row.teams), token_hash)

    def end(self, person: Person, everywhere: bool = False) -> None:
        """End this session, or all of the person's."""
        with self.engine.begin() as connection:
            if everywhere:
                queries.statement(_SQL, "end_all").execute(connection, {"person": person.name})
            else:
                queries.statement(_SQL, "end").execute(
                    connection, {"token_hash": person.token_hash}
                )


def digest(token: str) -> bytes:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).digest()
