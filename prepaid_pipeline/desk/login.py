"""The desk's own login to the database: it may take people's roles, and has no right of its own."""

import os
import secrets
from hashlib import sha256
from pathlib import Path

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from prepaid_pipeline import private
from prepaid_pipeline.database import connections, queries
from prepaid_pipeline.database.connections import refusal
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.desk import DeskSettings
from prepaid_pipeline.settings.load import Settings

_SQL = "desk/login"
_NAME = "prepaid_desk"
_HELP = (
    "set PREPAID_DESK_DATABASE_URL to a login in the role desk (docs/desk.md has the statements)"
)


def own_login(settings: Settings, desk: DeskSettings) -> URL:
    """The database as the desk's own login, which is made unless it is given.

    Given it is PREPAID_DESK_DATABASE_URL. Made, it has a name of this database's own and a password
    that is kept in ``$PREPAID_HOME/desk_password``; the embedded server lets it in without.

    Raises SettingError when it cannot be created, cannot connect, or has rights of its own.
    """
    if desk.database_url is not None:
        try:
            url = make_url(desk.database_url).set(drivername="postgresql")
        except ArgumentError:
            raise SettingError(
                "PREPAID_DESK_DATABASE_URL cannot be read: expected"
                " postgresql://user:password@host/database"
            ) from None
    else:
        url = _made(settings)
    _let_in(settings, url)
    _require_powerless(url)
    return url


def _made(settings: Settings) -> URL:
    pipeline = connections.url(settings)
    name, password = _NAME, None
    if settings.database_url is not None:
        # Roles belong to the server: another installation's desk on it keeps its password.
        mark = sha256((pipeline.database or "").encode()).hexdigest()[:8]
        name, path = f"{_NAME}_{mark}", settings.home / "desk_password"
        try:
            password = _kept_password(path)
        except OSError as error:
            raise SettingError(
                f"The password of the sign-off desk's login cannot be kept in {path}:"
                f" {error.strerror}. Set PREPAID_HOME to a directory that this user may write to."
            ) from error
    engine = connections.engine_for(pipeline)
    try:
        with engine.begin() as connection:
            verifier = ""
            if password is not None:
                # Made here: the password itself is in no statement, and so in no log of the server.
                driver = connection.connection.driver_connection
                assert driver is not None
                verifier = driver.pgconn.encrypt_password(
                    password.encode(), name.encode(), b"scram-sha-256"
                ).decode()
            params = {"name": name, "verifier": verifier}
            queries.statement(_SQL, "asked").execute(connection, params)
            queries.statement(_SQL, "make").execute(connection, params)
    except DBAPIError as error:
        raise SettingError(
            f"The sign-off desk's login cannot be created: {refusal(error)}. Instead, {_HELP}."
        ) from error
    finally:
        engine.dispose()
    return pipeline.set(username=name, password=password)


def _let_in(settings: Settings, login: URL) -> None:
    engine = connections.engine(settings)
    try:
        with engine.begin() as connection:
            params = {"name": login.username or ""}
            queries.statement(_SQL, "let_in").execute(connection, params)
    except DBAPIError as error:
        raise SettingError(
            f"The sign-off desk's login {login.username!r} cannot be let into the database:"
            f" {refusal(error)}"
        ) from error
    finally:
        engine.dispose()


def _kept_password(path: Path) -> str:
    private.make_directory(path.parent)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if kept := path.read_text(encoding="ascii").strip():
            return kept
        path.unlink()  # made by a process that died before it had written it
        return _kept_password(path)
    with os.fdopen(file, "w", encoding="ascii") as made:
        password = secrets.token_urlsafe(32)
        made.write(f"{password}\n")
    return password


def _require_powerless(url: URL) -> None:
    engine = connections.engine_for(url)
    try:
        require_powerless(engine)
    except OperationalError as error:
        raise SettingError(
            f"The sign-off desk's login {url.username!r} cannot connect to the database:"
            f" {error.orig} Let it in, or {_HELP}."
        ) from error
    finally:
        engine.dispose()


def require_powerless(engine: Engine) -> None:
    """Raise SettingError unless the login can act for people only by taking their role."""
    with engine.connect() as connection:
        row = queries.statement(_SQL, "rights").execute(connection, {}).one()
    if row.is_superuser or row.may_decide or row.may_write or not row.is_desk:
        raise SettingError(
            f"The sign-off desk's login {row.name!r} must be in the role desk and have no rights of"
            f" its own: {_HELP}"
        )
