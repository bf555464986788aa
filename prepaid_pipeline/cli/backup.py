"""``prepaid backup``: a backup, the drill that proves it, and the restore."""

from dataclasses import asdict
from datetime import date
from pathlib import Path

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import DATE, echo_json, json_option, with_database
from prepaid_pipeline.database import connections
from prepaid_pipeline.settings.load import Settings, load

_FILE = click.Path(dir_okay=False, path_type=Path)
_as_of_option = click.option(
    "--as-of",
    type=DATE,
    default=None,
    metavar="DATE",
    help="The business date (YYYY-MM-DD) for the invariants. Default: the day of the backup.",
)


@click.group("backup")
def backup_command() -> None:
    """Backups of the database, and the proof that they can be restored."""


@backup_command.command("create")
@click.argument("file", type=_FILE)
@json_option
@with_database
def backup_create(file: Path, as_json: bool, settings: Settings, engine: Engine) -> None:
    """Write the whole database to FILE, and next to it a manifest of what must be in it.

    Work continues meanwhile: the backup shows one moment. FILE must not exist.
    """
    from prepaid_pipeline.operations.backup.dumping import create

    manifest = create(engine, connections.url(settings), file)
    if as_json:
        echo_json(asdict(manifest))
        return
    click.echo(
        f"{file}: {manifest.dump_bytes:,} bytes, {sum(manifest.tables.values()):,} rows in"
        f" {len(manifest.tables)} tables, up to seal {manifest.seal_number}."
        f" 'prepaid backup drill {file}' proves that it can be restored."
    )


@backup_command.command("drill")
@click.argument("file", type=_FILE)
@click.option(
    "--here",
    is_flag=True,
    help="Into a new database on the server in use. Default: a new embedded server.",
)
@_as_of_option
@json_option
def backup_drill(file: Path, here: bool, as_of: date | None, as_json: bool) -> None:
    """Restore FILE somewhere else, verify everything, throw it away. Exit 1 if anything is wrong.

    Rows and totals are compared with the manifest, the audit log with its seals and all anchors,
    and every invariant of 'prepaid check' is tested.
    """
    from prepaid_pipeline.operations.backup.restoring import drill

    settings = load()

    def say(part: str, seconds: float) -> None:
        if not as_json:
            click.echo(f"{seconds:7.1f} s  {part}")

    url = connections.url(settings) if here else None
    result = drill(file, settings, here=url, as_of=as_of, say=say)
    if as_json:
        echo_json(asdict(result))
    else:
        for finding in result.findings:
            click.echo(f"WRONG  {finding}")
        if not result.findings:
            total = sum(result.seconds.values())
            click.echo(f"{file} can be restored, and it is complete ({total:.0f} s).")
    if result.findings:
        raise click.exceptions.Exit(1)


@backup_command.command("restore")
@click.argument("file", type=_FILE)
@_as_of_option
def backup_restore(file: Path, as_of: date | None) -> None:
    """Restore FILE into the empty database of PREPAID_DATABASE_URL, and verify it.

    Without PREPAID_DATABASE_URL it is the embedded server of PREPAID_HOME. People and the desk's
    login get their roles back, but no passwords.
    """
    from prepaid_pipeline.operations.backup.restoring import examine, restore, whole

    settings = load()
    manifest = whole(file)
    url = connections.url(settings)
    engine = connections.engine_for(url)
    try:
        restore(engine, url, file, manifest)
        parts = examine(engine, settings, manifest, as_of)
        wrong = [text for _, found in parts for text in found]
    finally:
        engine.dispose()
    for finding in wrong:
        click.echo(f"WRONG  {finding}")
    if wrong:
        raise click.exceptions.Exit(1)
    click.echo(
        f"Restored from {file}, made at {manifest.made_at}; all of it is there. Run 'prepaid"
        " migrate' and 'prepaid doctor' before you start anything."
    )
