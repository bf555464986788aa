"""What must be right before anything is started: disks, clocks, durability, one daemon."""

import shutil
from pathlib import Path

from sqlalchemy import Engine

from prepaid_pipeline import private
from prepaid_pipeline.database import connections, queries, waits
from prepaid_pipeline.errors import DatabaseNotReady, PrepaidError, SettingError
from prepaid_pipeline.operations.service.daemon import HEARTBEAT_SECONDS, NOT_ALONE, other_daemon
from prepaid_pipeline.operations.service.lock import DAEMON, holder
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.storage import Store

_SQL = "operations/service/doctor"
# Leases and waiting times are the database's clock, schedules are this machine's.
_MOST_SKEW_SECONDS = 5.0
_MEGABYTE = 10**6


def require_safe(settings: Settings, engine: Engine) -> None:
    """Refuse a set-up that could lose what it confirms. Raises PrepaidError, which says what to do.

    The rest of what the doctor checks fails on its own when it is used.
    """
    durability(engine)
    clock(engine)
    reports(settings)
    room(settings)
    room_for_data(settings, engine)


def durability(engine: Engine) -> str:
    """The server keeps what it has confirmed. Raises DatabaseNotReady."""
    with engine.connect() as connection:
        off = queries.statement(_SQL, "durability").execute(connection, {}).scalars().all()
    if off:
        raise DatabaseNotReady(
            f"{', '.join(off)} is off: a crash of the server can lose or tear what was committed."
            " Switch it on in postgresql.conf and reload."
        )
    return "fsync, full_page_writes and synchronous_commit are on"


def clock(engine: Engine) -> str:
    """The database and this machine have the same time. Raises DatabaseNotReady."""
    connections.require_same_clock(engine, _MOST_SKEW_SECONDS)
    return "the database's and this machine's agree"


def writable(directory: Path, setting: str) -> str:
    """The directory can be written. Raises SettingError, which names the setting."""
    probe = directory / ".prepaid-doctor"
    try:
        private.make_directory(directory)
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise SettingError(
            f"{directory} cannot be written: {error.strerror}. Set {setting} to a directory that"
            " this user may write to."
        ) from error
    return str(directory)


def home(directory: Path) -> str:
    """The home can be written, by its own user only. Raises SettingError."""
    found = writable(directory, "PREPAID_HOME")
    private.require_closed(directory)
    return found


def reports(settings: Settings) -> str:
    """The report store can be written. Raises SettingError."""
    store = Store.of(settings)
    if store.is_local:
        return writable(Path(store.root), "PREPAID_REPORTS")
    store.probe()
    return store.address("")


def room(settings: Settings) -> str:
    """There is room for our own files. Raises PrepaidError."""
    found = [("PREPAID_HOME", settings.home)]
    if "://" not in settings.reports:
        found.append(("PREPAID_REPORTS", Path(settings.reports).expanduser().resolve()))
    return "; ".join(_has_room(name, path, settings) for name, path in found)


def room_for_data(settings: Settings, engine: Engine) -> str:
    """There is room where the server keeps its data, when that is on this machine and we are told
    where. Raises PrepaidError.
    """
    host = engine.url.host or str(engine.url.query.get("host", ""))
    if not (host.startswith("/") or host in ("", "localhost", "127.0.0.1", "::1")):
        return "on another machine: not checked"
    with engine.connect() as connection:
        data = queries.statement(_SQL, "data_directory").execute(connection, {}).scalar()
    if not data:
        return "not checked: this user may not see where it is (GRANT pg_monitor allows it)"
    return _has_room("the database's data", Path(data), settings)


def _has_room(name: str, path: Path, settings: Settings) -> str:
    try:
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(existing).free // _MEGABYTE
    except OSError:
        return f"{name}: another user's, not checked"
    if free < settings.free_mb:
        raise PrepaidError(
            f"The disk of {name} ({path}) has {free} MB left, less than PREPAID_FREE_MB"
            f" ({settings.free_mb}). Make room before it is full: on a full disk the"
            " database records no decision."
        )
    return f"{free} MB free for {name}"


def nobody_blocks(settings: Settings, engine: Engine) -> str:
    """No open transaction keeps the pipeline waiting. Raises PrepaidError: whose it is."""
    found = waits.worth_telling(waits.blockers(engine), settings.blocked_seconds)
    if not found:
        return "nobody keeps the pipeline waiting"
    raise PrepaidError(" ".join(_blocks(blocker, settings.blocked_seconds) for blocker in found))


def _blocks(blocker: waits.Blocker, blocked_seconds: int) -> str:
    by_hand = f"End it as a superuser: SELECT pg_terminate_backend({blocker.pid});"
    if not blocker.may_end:
        return f"{blocker}. {by_hand}"
    if blocker.refusal:
        return (
            f"{blocker}, and it cannot be ended: {blocker.refusal}. {by_hand} The pipeline's user"
            " may do so itself after GRANT pg_signal_backend."
        )
    return (
        f"{blocker} by a transaction that is left open. It is ended after PREPAID_BLOCKED_SECONDS"
        f" ({blocked_seconds})."
    )


def daemon(engine: Engine) -> str:
    """At most one daemon works on the database. Raises PrepaidError."""
    with_lock = holder(engine, DAEMON)
    if with_lock is None and (seconds := other_daemon(engine)) is not None:
        raise PrepaidError(
            f"A daemon without the lock worked on this database {seconds:.0f} s ago: one that was"
            f" started by hand, or was killed in the last {HEARTBEAT_SECONDS:.0f} s. End it; start"
            " daemons with 'prepaid up' or deploy/prepaid-daemon.service."
        )
    if with_lock is not None and with_lock.startswith(NOT_ALONE):
        raise PrepaidError(
            "Two daemons work on this database: in addition to the one that holds the lock, another"
            " was started by hand ('dagster-daemon run', 'dagster dev'). End that one: each run"
            " would be requested twice."
        )
    return with_lock or "not running"
