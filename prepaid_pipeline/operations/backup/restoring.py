"""Restoring a backup, and proving that it can be: into a new server of its own, or a database that
is dropped again.
"""

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

from sqlalchemy import URL, Engine, make_url

from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.context import Context
from prepaid_pipeline.database import connections, embedded, migrations, queries
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.operations.backup import tools
from prepaid_pipeline.operations.backup.manifest import Manifest, beside, differences, digest, major
from prepaid_pipeline.settings.load import Settings

_SQL = "operations/backup/restore"
Say = Callable[[str, float], None]


@dataclass
class Drill:
    """What was found in a restored backup (empty: all is well), and how long each part took."""

    findings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def whole(file: Path) -> Manifest:
    """The manifest of a backup whose file is what was written. Raises BackupFailed."""
    if not file.is_file():
        raise tools.BackupFailed(f"{file} is not there.")
    manifest = Manifest.read(beside(file))
    if digest(file) != manifest.dump_sha256:
        raise tools.BackupFailed(
            f"{file} is not what 'prepaid backup create' wrote: its SHA-256 differs from the"
            " manifest's. It was truncated, damaged or changed."
        )
    return manifest


def restore(engine: Engine, url: URL, file: Path, manifest: Manifest) -> None:
    """Restore into an empty database, all or nothing; roles that are missing are made, NOLOGIN.

    Raises BackupFailed if this program cannot bring the backup to its own schema, if the database
    is not empty, or in pg_restore's own words.
    """
    if why := migrations.no_way_from(manifest.migration):
        raise tools.BackupFailed(f"The backup was made at migration {manifest.migration}: {why}")
    with engine.begin() as connection:
        if not queries.statement(_SQL, "is_empty").execute(connection, {}).scalar():
            raise tools.BackupFailed(
                "The database has tables of ours already: a backup is restored into an empty one."
            )
        _roles(engine, manifest)
        program = tools.find("pg_restore", max(major(connection), manifest.server_version))
    tools.run(
        program,
        url,
        "--single-transaction",
        "--exit-on-error",
        "--no-owner",
        str(file),
    )


def examine(
    engine: Engine,
    settings: Settings,
    manifest: Manifest,
    as_of: date | None = None,
    *,
    is_copy: bool = False,
) -> Iterator[tuple[str, list[str]]]:
    """What is wrong with a restored database, part by part: rows and totals against the manifest,
    the audit log against its seals and anchors, and every invariant of ``prepaid check`` as of the
    business date (default: the day of the backup).
    """
    with engine.connect() as connection:
        yield "rows and totals", list(differences(connection, manifest))
    remembered = [
        anchor for anchor in anchors.stored(settings) if anchor.seal_number <= manifest.seal_number
    ]
    found = seals.verify(engine, [*manifest.anchors(), *remembered])
    yield "audit log", [finding.text for finding in found]
    if manifest.migration != migrations.newest():
        migrations.upgrade(engine)
        yield f"migration from {manifest.migration} to {migrations.newest()}", []
    if is_copy:
        with engine.begin() as connection:
            queries.statement(_SQL, "as_it_was").execute(connection, {})
    # Entries that were not sealed yet have become older since.
    seals.seal(engine, wait=True)
    made_on = datetime.fromisoformat(manifest.made_at).astimezone(settings.timezone).date()
    checked = invariants.run(engine, Context.of(settings, as_of or made_on))
    yield "invariants", [finding for check in checked for finding in check.findings]


def drill(
    file: Path,
    settings: Settings,
    *,
    here: URL | None = None,
    as_of: date | None = None,
    say: Say = lambda *_: None,
) -> Drill:
    """Restore a backup somewhere else and examine it; nothing of it stays.

    Into a new embedded server, or into a new database on the server of ``here``. ``as_of`` is the
    business date of the invariants (default: the day of the backup). ``say`` gets each part with
    its seconds when it is done. Raises BackupFailed when it cannot even be restored.
    """
    result, started = Drill(), time.monotonic()

    def done(part: str) -> None:
        nonlocal started
        result.seconds[part] = round(time.monotonic() - started, 1)
        say(part, result.seconds[part])
        started = time.monotonic()

    manifest = whole(file)
    done("file")
    with _scratch(here) as url:
        done("empty database")
        engine = connections.engine_for(url)
        try:
            restore(engine, url, file, manifest)
            done("restore")
            for part, findings in examine(engine, settings, manifest, as_of, is_copy=True):
                result.findings += findings
                done(part)
        finally:
            engine.dispose()
    done("clean-up")
    return result


@contextmanager
def _scratch(here: URL | None) -> Iterator[URL]:
    if here is None:
        with tempfile.TemporaryDirectory(prefix="prepaid-drill-") as folder:
            home = Path(folder)
            home.chmod(0o755)  # as root the server runs as another user
            try:
                yield make_url(embedded.start(home))
            finally:
                embedded.stop(home)
        return
    name = f"prepaid_drill_{uuid.uuid4().hex[:12]}"
    with embedded.scratch_database(here, name):
        yield here.set(database=name)


def _roles(engine: Engine, manifest: Manifest) -> None:
    with engine.begin() as connection:
        for role in manifest.roles:
            asked = {"name": role["name"], "inherits": str(role["inherits"]).lower(), "team": ""}
            known = queries.statement(_SQL, "role_exists").execute(connection, asked)
            if not known.scalar():
                queries.statement(_SQL, "set").execute(connection, asked)
                queries.statement(_SQL, "create_role").execute(connection, {})
        for role in manifest.roles:
            for team in role["teams"]:
                asked = {"name": role["name"], "inherits": "", "team": team}
                queries.statement(_SQL, "set").execute(connection, asked)
                queries.statement(_SQL, "grant_team").execute(connection, {})
