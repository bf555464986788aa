"""Sign-ins: a random token in a cookie, its hash in the database, where it can be ended."""

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import Response

from prepaid_pipeline.database import queries
from prepaid_pipeline.desk import passwords
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.settings.desk import DeskSettings

_SQL = "desk/sessions"
_RAISED = "P0001"  # by desk_open_session itself


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
        """Whether that person may sign in with that password; counts the failures.

        Raises NotAllowed when too many sign-ins are being checked already.
        """
        with passwords.in_line():
            while (right := self._compared(name, password)) is None:
                pass  # another attempt was counted in between: it may have been the last
        return right

    def _compared(self, name: str, password: str) -> bool | None:
        """One comparison, counted as wrong before it is made; None if another came in between.

        The count holds the account's row until the answer is there, so that attempts at the same
        moment, also in other processes, are compared one by one. A right answer takes it back.
        """
        account, params = queries.statement(_SQL, "account"), {"person": name}
        with self.engine.connect() as connection:
            seen = account.execute(connection, params).one_or_none()
            if seen is not None and seen.may_sign_in:
                queries.statement(_SQL, "failed").execute(connection, params)
                counted = account.execute(connection, params).one_or_none()
                if counted is None or counted.failed != seen.failed + 1:
                    return None
                right = passwords.fits(password, counted.password_hash)
                if not right:
                    connection.commit()
                return right
        # As long as for an account that may be tried.
        passwords.fits(password, None)
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
        """Sign a person in: a new token, so that one from before is worth nothing.

        Raises NotAllowed for an account that was locked or disabled at this very moment.
        """
        token = secrets.token_urlsafe(32)
        params = {
            "token_hash": digest(token),
            "person": name,
            "idle_seconds": 60 * self.settings.idle_minutes,
            "absolute_seconds": self.settings.absolute_seconds,
        }
        try:
            with self.engine.begin() as connection:
                queries.statement(_SQL, "open").execute(connection, params)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _RAISED:
                raise
            raise NotAllowed(f"{name} cannot sign in at the moment") from error
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
