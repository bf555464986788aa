"""What several commands share: the options --as-of and --json, the open database, output."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import wraps
from typing import Any

import click

from prepaid_pipeline import logs
from prepaid_pipeline.audit import seals
from prepaid_pipeline.csv_safety import harmless
from prepaid_pipeline.database import connections, migrations
from prepaid_pipeline.language.english import count, grouped, money
from prepaid_pipeline.operations import installation
from prepaid_pipeline.settings.load import Settings, load
from prepaid_pipeline.settings.parsers import parse_month


class _Date(click.ParamType[date]):
    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a date: expected YYYY-MM-DD", param, ctx)


class _Month(click.ParamType[date]):
    name = "month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return parse_month(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a month: expected YYYY-MM", param, ctx)


# A cell is as wide as the longest one of its column, and a provider's may have 130,000 characters.
_WIDEST = 1000
# What the database says in words, in which amounts stand as they are stored.
_SENTENCES = ("text", "detail", "reason", "what")

DATE = _Date()
MONTH = _Month()

as_of_option = click.option(
    "--as-of",
    type=DATE,
    default=None,
    metavar="DATE",
    help="The business date (YYYY-MM-DD). Default: today in PREPAID_TIMEZONE.",
)
as_option = click.option(
    "--as", "person", required=True, metavar="PERSON", help="Whose decision this is."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def with_database(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``settings`` and an ``engine`` on the migrated database.

    The embedded one is migrated here, if that is needed; what is to be known of it goes to the
    standard error, so that programs can read the output. Any other has to be migrated already.
    What it has left in the audit log is sealed when it ends.
    """

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        settings = load()
        logs.configure(settings, quiet=True)
        engine = connections.engine(settings)
        try:
            if settings.database_url is None:
                for line in installation.migrate_embedded(engine, settings):
                    click.echo(line, err=True)
            migrations.require_current(engine)
            connections.require_same_clock(engine)
            try:
                command(*args, settings=settings, engine=engine, **kwargs)
            finally:
                seals.seal_after(engine)
        finally:
            engine.dispose()

    return wrapped


def business_date(as_of: date | None, settings: Settings) -> date:
    """The date given with --as-of, else today where the installation is."""
    return as_of or settings.today()


def echo_json(value: object) -> None:
    """Print JSON; amounts are strings, so that no reader turns them into floats."""
    click.echo(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def echo_csv(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print CSV (RFC 4180) for a spreadsheet under the titles of ``columns`` (key -> title).

    Texts that a spreadsheet would run as a formula are made harmless.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns.values())
    for row in rows:
        writer.writerow(
            [harmless(row[key]) if isinstance(row[key], str) else row[key] for key in columns]
        )
    click.echo(out.getvalue(), nl=False)


def echo_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print rows under their titles (``columns``: key -> title); numbers to the right.

    Amounts and counts have commas, as everywhere; JSON and CSV have them plain, for programs.
    """
    cells = [[shown(key, row[key]) for key in columns] for row in rows]
    widths = [
        max(len(title), *(len(line[i]) for line in cells)) if cells else len(title)
        for i, title in enumerate(columns.values())
    ]
    right = [bool(rows) and isinstance(rows[0][key], int | Decimal) for key in columns]
    for line in [list(columns.values()), *cells]:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def shown(key: str, value: object) -> str:
    """A value as people read it; what is named by its number is written as it is typed."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return money(value)
    if isinstance(value, int) and not key.endswith("_id"):
        return count(value)
    if key in _SENTENCES and isinstance(value, str):
        return grouped(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    said = str(value)
    return said if len(said) <= _WIDEST else f"{said[:_WIDEST]}…"


def _plain(value: object) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    return str(value)
