"""What is wrong with the set-up: each check says what it found, or what is wrong and what to do."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec
from urllib.parse import urlsplit

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.billing import dunning
from prepaid_pipeline.context import Context
from prepaid_pipeline.database import connections, embedded, migrations, queries, urls
from prepaid_pipeline.desk.login import own_login
from prepaid_pipeline.errors import DatabaseNotReady, PrepaidError, SettingError
from prepaid_pipeline.language import catalogue
from prepaid_pipeline.language.english import plural
from prepaid_pipeline.mail.smtp import SmtpTransport
from prepaid_pipeline.mail.transport import parse_smtp_url, sender_address
from prepaid_pipeline.operations.service import guards
from prepaid_pipeline.operations.service.dagster_instance import (
    prepare_dagster_home,
    workspace_file,
)
from prepaid_pipeline.operations.service.lock import holder
from prepaid_pipeline.operations.service.processes import HOST
from prepaid_pipeline.people import entry
from prepaid_pipeline.process import window
from prepaid_pipeline.settings.desk import load as load_desk
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.settings.parsers import is_loopback
from prepaid_pipeline.teams import TEAMS

_SQL = "operations/service/doctor"
_VALIDATE_SECONDS = 180

P = ParamSpec("P")
Check = Callable[Concatenate[Engine, P], str]


@dataclass(frozen=True)
class Finding:
    """One check: ``text`` is what was found, or what is wrong and what to do about it."""

    check: str
    ok: bool
    text: str


def examine(settings: Settings) -> Generator[Finding]:
    """All checks, cheap ones first. Those of the database are left out if it cannot be reached."""
    yield _finding("home", lambda: guards.home(settings.home))
    yield _finding("reports", lambda: guards.reports(settings))
    yield _finding("language", lambda: catalogue.load(settings).tag)
    yield _finding("disks", lambda: guards.room(settings))
    yield _finding("mail", lambda: _mail(settings))
    yield _finding("sign-off desk", _desk)
    try:
        engine = connections.engine(settings)
        reachable = _finding("database", lambda: _version(engine))
    except PrepaidError as error:
        yield Finding("database", False, str(error))
        return
    try:
        yield reachable
        if reachable.ok:
            for name, check in _DATABASE_CHECKS.items():
                yield _finding(name, lambda check=check: check(engine))  # type: ignore[misc]
            yield _finding("migrations", lambda: _migrated(engine, settings))
            if settings.database_url is None:
                yield _finding(
                    "database's socket", lambda: embedded.require_closed_socket(settings.home)
                )
            yield _finding("waits", lambda: guards.nobody_blocks(settings, engine))
            yield _finding("time zone", lambda: _timezone(engine, settings))
            yield _finding("decisions", lambda: _decisions(engine))
            yield _finding("business dates", lambda: _business_dates(engine, settings))
            yield _finding("payment records", lambda: _payment_records(engine, settings))
            yield _finding("sign-off desk's login", lambda: _desk_login(settings, engine))
            yield _finding("dagster storage", lambda: _dagster_storage(settings))
            yield _finding("code location", lambda: _code_location(settings))
            yield _finding("up", lambda: holder(engine) or "not running")
            yield _finding("daemon", lambda: guards.daemon(engine))
            yield _finding("dagster ui", lambda: _dagster_ui(settings, engine))
            yield _finding("database's disk", lambda: guards.room_for_data(settings, engine))
    finally:
        engine.dispose()


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except PrepaidError as error:
        return Finding(name, False, str(error))


def _mail(settings: Settings) -> str:
    sender = sender_address(settings).addr_spec
    if settings.smtp_url is None:
        return f"as files: {guards.writable(settings.mail_directory, 'PREPAID_HOME')}"
    server = parse_smtp_url(settings.smtp_url)
    transport = SmtpTransport(server, sender)
    try:
        transport.check()
    finally:
        transport.close()
    return f"{server.scheme} {server.address} as {sender}"


def _desk() -> str:
    desk = load_desk()
    if desk.port is None:
        return "off (PREPAID_DESK_PORT)"
    return f"{desk.url}, {'for others too' if desk.is_public else 'for this machine only'}"


def _desk_login(settings: Settings, engine: Engine) -> str:
    try:
        desk = load_desk()
        migrations.require_current(engine)
    except (DatabaseNotReady, SettingError):
        return "not checked"
    if desk.port is None:
        return "not needed"
    if desk.database_url is None:
        return "created when the desk starts"
    return f"{own_login(settings, desk).username} may take people's roles, and nothing else"


def _dagster_ui(settings: Settings, engine: Engine) -> str:
    """It asks who is there, and somebody can change things in it."""
    if _answers_anybody(settings.port):
        raise PrepaidError(
            f"What listens on port {settings.port} (PREPAID_PORT) lets anybody in: a Dagster"
            " webserver that was started by hand ('dagster-webserver', 'dagster dev'). Any web page"
            " can start and stop runs through it. End it; 'prepaid up' or 'prepaid serve webserver'"
            " serve the UI with a sign-in."
        )
    try:
        migrations.require_current(engine)
        desk = load_desk()
    except (DatabaseNotReady, SettingError):
        return "not checked"
    if desk.oidc_issuer is not None:
        return f"{settings.ui_url}, people sign in at {desk.oidc_issuer}"
    try:
        with engine.connect() as connection:
            asked = queries.statement("operations/dagster_ui", "engineers")
            who = asked.execute(connection, {}).one()
    except DBAPIError:
        return "not checked: this user may not see who has a password"
    if not who.anybody and is_loopback(urlsplit(settings.ui_url).hostname or ""):
        links = "by one-time links (prepaid sign-in-link) until somebody has a password"
        return f"{settings.ui_url}, {links}"
    if not who.engineers:
        return (
            f"{settings.ui_url}, in which nobody can start or stop anything: nobody in the team"
            " engineering has a password (prepaid user password NAME)"
        )
    return f"{settings.ui_url}, with {who.engineers} of the team engineering who may change things"


def _answers_anybody(port: int) -> bool:
    """Whether Dagster's own answer comes without anybody having signed in."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/server_info", timeout=5) as answer:
            return answer.status == 200 and b"dagster_webserver_version" in answer.read(10_000)
    except (OSError, ValueError):
        return False


def _version(engine: Engine) -> str:
    try:
        with engine.connect() as connection:
            (version, *_) = connection.dialect.server_version_info or (0,)
    except DBAPIError as error:
        raise DatabaseNotReady(
            f"The database cannot be reached: {error.orig}. Check PREPAID_DATABASE_URL."
        ) from error
    if int(version) < migrations.OLDEST_SERVER:
        raise DatabaseNotReady(
            f"PostgreSQL {version} is too old: {migrations.OLDEST_SERVER} or newer is needed."
        )
    return f"PostgreSQL {version}, {urls.shown(engine.url)}"


def _btree_gist(engine: Engine) -> str:
    with engine.connect() as connection:
        if not queries.statement(_SQL, "btree_gist").execute(connection, {}).scalar():
            raise DatabaseNotReady(
                "The extension btree_gist is missing. Install PostgreSQL's contrib package on the"
                " server."
            )
    return "available"


def _rights(engine: Engine) -> str:
    with engine.connect() as connection:
        row = queries.statement(_SQL, "rights").execute(connection, {}).one()
        named = {"teams": list(TEAMS)}
        teams = queries.statement(_SQL, "teams").execute(connection, named).scalar()
    missing = [
        what
        for what, granted in (
            ("CREATE on the database", row.may_create),
            ("CREATEROLE", row.may_create_roles),
        )
        if not granted
    ]
    if missing:
        raise DatabaseNotReady(
            f"The database user lacks {' and '.join(missing)}. docs/operate.md has the statements."
        )
    if teams:
        raise DatabaseNotReady(
            f"Another user made the teams {teams}: nobody can be added to them. As that user:"
            f" GRANT {teams} TO {engine.url.username} WITH ADMIN OPTION;"
        )
    return "CREATE on the database, CREATEROLE, may add people to the teams"


def _migrated(engine: Engine, settings: Settings) -> str:
    if settings.database_url is None and migrations.is_behind(engine):
        return "not at the newest yet: the first command that needs the database migrates it"
    migrations.require_current(engine)
    return f"at {migrations.newest()}, the newest"


def _on_our_tables(check: Check[P]) -> Check[P]:
    """A check that reads them, and leaves a database alone that does not have them as they are."""

    @wraps(check)
    def checked(engine: Engine, /, *args: P.args, **kwargs: P.kwargs) -> str:
        try:
            migrations.require_current(engine)
        except DatabaseNotReady:
            return "not checked: the database is not migrated"
        return check(engine, *args, **kwargs)

    return checked


@_on_our_tables
def _people(engine: Engine) -> str:
    with engine.connect() as connection:
        asked = ("open_to_the_public", "role_makers", "more_than_people")
        is_open, makers, more = [
            queries.statement(_SQL, part).execute(connection, {}).scalar() for part in asked
        ]
    wrong = [entry.how_to_close(engine)] if is_open else []
    if makers:
        wrong.append(
            "Before PostgreSQL 16 a user with CREATEROLE can put itself into any role, and so"
            f" decide in anybody's name: {makers}. Take CREATEROLE from them, or give this database"
            " a server of its own or a newer one."
        )
    if more:
        wrong.append(
            f"Sessions of {more} count as the pipeline's own: take the role desk and CREATE on the"
            " schema prepaid from them."
        )
    if wrong:
        raise PrepaidError(" ".join(wrong))
    return "nobody but the people of this database may connect to it as one of them"


@_on_our_tables
def _timezone(engine: Engine, settings: Settings) -> str:
    written, wanted = migrations.written_timezone(engine), str(settings.timezone)
    if written != wanted:
        raise SettingError(
            f"PREPAID_TIMEZONE is {wanted}, but the database counts its days in {written}. Correct"
            " the setting, or run 'prepaid migrate': from then on the database counts in"
            f" {wanted}; dates that are already stored do not change."
        )
    return f"the database counts its days in {written}"


@_on_our_tables
def _decisions(engine: Engine) -> str:
    with engine.connect() as connection:
        teams = queries.statement(_SQL, "undecidable").execute(connection, {}).all()
    if teams:
        raise PrepaidError(
            " ".join(
                f"{team.team}: nobody may decide {plural(team.tasks, 'open task')} (such as task"
                f" {team.first_task}), because "
                + (
                    "everybody in the team had a hand in it."
                    if team.has_people
                    else "the team has nobody."
                )
                + f" Add somebody: prepaid user add NAME --team {team.team}"
                for team in teams
            )
        )
    return "somebody may decide every open task"


@_on_our_tables
def _business_dates(engine: Engine, settings: Settings) -> str:
    found = window.look(engine, settings)
    if found.real:
        return f"today is {found.today}; what cannot be taken back is asked about for a later one"
    return f"today is {found.today}; no date is asked about: until now each was given by --as-of"


def _payment_records(engine: Engine, settings: Settings) -> str:
    if settings.payments_expected_days is None:
        return (
            "not looked at. Recommended: set PREPAID_PAYMENTS_EXPECTED_DAYS, so that after an"
            " outage nobody is reminded or cancelled whose payment has not been delivered yet"
        )
    return _sources(engine, settings)


@_on_our_tables
def _sources(engine: Engine, settings: Settings) -> str:
    silent = dunning.silent_sources(engine, Context.of(settings))
    if silent:
        raise PrepaidError(
            f"{'; '.join(map(str, silent))}. Nobody is reminded or cancelled until one has landed:"
            " import what is missing with 'prepaid payments import'"
        )
    return f"each usual source has delivered in the last {settings.payments_expected_days} days"


def _dagster_storage(settings: Settings) -> str:
    engine = create_engine(prepare_dagster_home(settings)["PREPAID_DAGSTER_URL"])
    try:
        with engine.connect() as connection:
            path = connection.execute(text("SELECT current_schema()")).scalar()
    except DBAPIError as error:
        raise DatabaseNotReady(f"Dagster cannot reach its storage: {error.orig}.") from error
    finally:
        engine.dispose()
    if path != "dagster":
        raise DatabaseNotReady(
            f"Dagster's storage would be in schema {path}, not in dagster: a connection pooler"
            " between them must pass on the start-up parameter 'options'."
        )
    return "schema dagster of the same database"


def _code_location(settings: Settings) -> str:
    validate = [
        sys.executable,
        "-m",
        "dagster",
        "definitions",
        "validate",
        "-w",
        str(workspace_file()),
        "--log-level",
        "error",
    ]
    environ = {**os.environ, **prepare_dagster_home(settings)}
    output = f"no answer after {_VALIDATE_SECONDS} s"
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            validate,
            cwd=settings.dagster_home,
            env=environ,
            capture_output=True,
            text=True,
            timeout=_VALIDATE_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return "loads"
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
    raise PrepaidError(f"Dagster cannot load the code location prepaid_pipeline:\n{output}")


_DATABASE_CHECKS: dict[str, Callable[[Engine], str]] = {
    "btree_gist": _btree_gist,
    "rights": _rights,
    "people": _people,
    "durability": guards.durability,
    "clock": guards.clock,
}
