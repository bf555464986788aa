"""``prepaid drill``: the service plans behind a month's figure."""

import csv
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import date
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, Any

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import (
    MONTH,
    echo_json,
    echo_table,
    json_option,
    with_database,
)
from prepaid_pipeline.csv_safety import harmless
from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.language.english import count, money
from prepaid_pipeline.revenue.drill_down import FIGURES, Behind, Figure, Total, behind
from prepaid_pipeline.revenue.report.content.rounding import rounded
from prepaid_pipeline.revenue.rules import KINDS, MOVEMENTS
from prepaid_pipeline.settings.load import Settings

UNKNOWN = "unknown"
LINES_SHOWN = 50
# Shown as people read them; CSV and JSON have all decimals, so that they add up.
_DECIMALS_SHOWN = 4


@click.command("drill")
@click.argument("figure", type=click.Choice(list(FIGURES)))
@click.argument("month", type=MONTH)
@click.option("--currency", metavar="CODE", help="One currency, such as EUR.")
@click.option("--plan", metavar="PLAN_CODE", help="One plan.")
@click.option("--country", metavar="CODE", help="One country, such as DE, or unknown.")
@click.option("--movement", type=click.Choice(MOVEMENTS), help="One movement.")
@click.option("--kind", type=click.Choice(KINDS), help="One kind of activation.")
@click.option(
    "--csv", "csv_file", metavar="FILE", help="Write all rows to a file (-: standard output)."
)
@json_option
@with_database
def drill_command(
    figure: str,
    month: date,
    csv_file: str | None,
    as_json: bool,
    settings: Settings,  # noqa: ARG001
    engine: Engine,
    **filters: str | None,
) -> None:
    """The service plans behind a published figure of a MONTH (YYYY-MM), which add up to it.

    Shows the first 50; --csv and --json have all of them, with all decimals.
    """
    _require_filters(FIGURES[figure], filters)
    if filters["country"] == UNKNOWN:
        filters["country"] = ""
    with behind(engine, figure, month, filters) as found:
        if as_json:
            _echo_json(figure, month, found)
            return
        if csv_file is not None:
            _write_csv(csv_file, found)
        else:
            _echo_rows(found)
        for total in found.totals.values():
            _echo_total(FIGURES[figure], month, found.as_of, total, err=csv_file == "-")
        if not found.totals:
            click.echo("No service plan is behind this figure.", err=csv_file == "-")


def _require_filters(figure: Figure, filters: Mapping[str, str | None]) -> None:
    for name in ("movement", "kind"):
        if filters[name] is not None and name not in figure.only:
            others = ", ".join(key for key, other in FIGURES.items() if name in other.only)
            raise click.UsageError(f"--{name} is for {others}")


def _echo_rows(found: Behind) -> None:
    shown = [
        _shown(row, found.totals[row["currency"]].exponent)
        for row in islice(found.rows, LINES_SHOWN)
    ]
    if shown:
        echo_table(shown, {column: column.replace("_", " ") for column in found.columns})
    more = sum(1 for _ in found.rows)
    if more:
        click.echo(f"… and {count(more)} more: --csv FILE has all of them")


def _shown(row: Mapping[str, Any], exponent: int) -> dict[str, Any]:
    return {key: _rounded(value, exponent) for key, value in row.items()} | {
        "country": row["country"] or UNKNOWN
    }


def _rounded(value: object, exponent: int) -> object:
    if not isinstance(value, Decimal):
        return value
    decimals = -int(value.as_tuple().exponent)
    return rounded(value, max(exponent, min(decimals, _DECIMALS_SHOWN)))


def _echo_total(figure: Figure, month: date, as_of: date, total: Total, *, err: bool) -> None:
    said = f"{_amount(total, total.amount)} over {_count(figure, total.count)}"
    if total.published is None:
        click.echo(f"{said}; the report has no figure of its own for it", err=err)
    elif not total.differs:
        click.echo(f"{said}, as published", err=err)
    else:
        click.echo(
            f"{said}, but the published figure is {_amount(total, total.published)} over"
            f" {_count(figure, total.published_count or 0)}: the service plans have changed since"
            f" the figures were computed as of {as_of}. Run 'prepaid backfill {month:%Y-%m}"
            f" {month:%Y-%m}'",
            err=True,
        )


def _amount(total: Total, amount: Decimal) -> str:
    return f"{money(rounded(amount, total.exponent))} {total.currency}"


def _count(figure: Figure, number: int) -> str:
    return f"{count(number)} {figure.counted[:-1] if number == 1 else figure.counted}"


def _echo_json(figure: str, month: date, found: Behind) -> None:
    rows = list(found.rows)
    echo_json(
        {
            "figure": figure,
            "month": f"{month:%Y-%m}",
            "as_of": found.as_of,
            "plans": rows,
            "totals": [
                {
                    "currency": total.currency,
                    "count": total.count,
                    "amount": total.amount,
                    "published": total.published,
                    "published_count": total.published_count,
                }
                for total in found.totals.values()
            ],
        }
    )


def _write_csv(target: str, found: Behind) -> None:
    with _opened(target) as out:
        writer = csv.writer(out)
        writer.writerow(found.columns)
        for row in found.rows:
            writer.writerow(
                harmless(value) if isinstance(value, str) else value for value in row.values()
            )


@contextmanager
def _opened(target: str) -> Iterator[IO[str]]:
    """The file gets its name once it is whole: what fails leaves an older one as it was."""
    if target == "-":
        with nullcontext(sys.stdout) as out:
            yield out
        return
    path = Path(target)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            yield out
        os.replace(part, path)
    except OSError as error:
        raise PrepaidError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
