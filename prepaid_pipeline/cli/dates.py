"""Business dates after today: a person says that they are meant, when asked or by an option."""

import sys
from datetime import date

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import DATE
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.process import window
from prepaid_pipeline.settings.load import Settings

yes_option = click.option(
    "--yes-this-is-date",
    "yes",
    type=DATE,
    default=None,
    metavar="DATE",
    help="The business date once more: a date after today is meant.",
)


def is_meant(yes: date | None, day: date) -> bool:
    """Whether --yes-this-is-date was given. Raises UsageError if it is not the business date."""
    if yes is not None and yes != day:
        raise click.UsageError(f"--yes-this-is-date says {yes}, but the business date is {day}")
    return yes is not None


def is_answered() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def require_meant(yes: date | None, day: date, settings: Settings, engine: Engine) -> None:
    """For an act that cannot be taken back: ask whether a day after today is meant.

    Raises NotAllowed if it is not, or if nobody is there to answer.
    """
    found = window.look(engine, settings)
    if is_meant(yes, day) or not found.is_later(day):
        return
    said = f"{day} is after today, {found.today}"
    if is_answered() and click.confirm(f"{said}, and this cannot be taken back. Is it meant?"):
        return
    raise NotAllowed(f"{said}: nothing was done. If it is meant: --yes-this-is-date {day}")
