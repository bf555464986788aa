"""``prepaid audit``: is the audit log what it was?"""

from dataclasses import asdict
from datetime import date
from pathlib import Path

import click
from sqlalchemy import Engine

from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.cli.common import (
    as_of_option,
    business_date,
    echo_json,
    json_option,
    with_database,
)
from prepaid_pipeline.cli.progress import counter
from prepaid_pipeline.language.english import count
from prepaid_pipeline.mail.anchor_mail import send_anchor
from prepaid_pipeline.settings.load import Settings


@click.group("audit")
def audit_command() -> None:
    """The audit log's seals and anchors."""


@audit_command.command("verify")
@click.option(
    "--anchor",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that records a seal: an anchor, a saved email, a report. May be repeated.",
)
@json_option
@with_database
def audit_verify(
    files: tuple[Path, ...],
    as_json: bool,
    settings: Settings,
    engine: Engine,
) -> None:
    """Recompute the chain of seals over the whole audit log. Exit 1 if anything was changed.

    Names the entries that were edited, removed, inserted or re-dated. That the newest entries are
    gone, or that everything was recomputed, only an anchor shows: those in the report store are
    read, and those that are given.
    """
    given = [anchor for file in files for anchor in anchors.from_file(file)]
    known = [*anchors.stored(settings), *given]
    with counter() as progress:
        found = seals.verify(engine, known, lambda entries: progress("entries verified", entries))
    newest, unsealed = seals.newest(engine), seals.unsealed(engine)
    if as_json:
        echo_json(
            {
                "findings": [asdict(finding) for finding in found],
                "newest_seal": newest and asdict(newest),
                "unsealed_entries": unsealed,
                "anchors": [asdict(anchor) for anchor in known],
            }
        )
    else:
        for finding in found:
            click.echo(f"CHANGED  {finding.text}")
        click.echo(_state(newest, unsealed, len(known), changed=bool(found)))
    if found:
        raise click.exceptions.Exit(1)


@audit_command.command("seal")
@with_database
def audit_seal(settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Seal the entries that have no seal yet. Every batch, job and decision does so too."""
    sealed, newest = seals.seal(engine, wait=True), seals.newest(engine)
    number = newest.seal_number if newest else 0
    click.echo(f"Entries sealed: {count(sealed)}. The newest seal is number {number}.")


@audit_command.command("anchor")
@as_of_option
@with_database
def audit_anchor(as_of: date | None, settings: Settings, engine: Engine) -> None:
    """Copy the newest seal outside the database: to the report store, and by email.

    The schedule anchor_audit_log_daily does so every day.
    """
    day = business_date(as_of, settings)
    made = anchors.anchor(engine, settings, day)
    if made is None:
        click.echo("The audit log is empty: there is nothing to anchor.")
        return
    mailed = (
        f", and emailed to {settings.anchor_to}" if send_anchor(settings, day, made.seal) else ""
    )
    click.echo(f"Seal {made.seal.seal_number} is anchored in {made.name}{mailed}.")


def _state(newest: seals.Seal | None, unsealed: int, known: int, *, changed: bool) -> str:
    if newest is None:
        return f"Nothing is sealed yet; entries that wait for the first seal: {count(unsealed)}."
    end = f"{count(newest.seal_number)} seals, up to entry {newest.sealed_through}"
    word = "The audit log was changed" if changed else "The audit log is as it was sealed"
    return (
        f"{word}: {end}; anchors compared: {count(known)};"
        f" entries not sealed yet: {count(unsealed)}."
    )
