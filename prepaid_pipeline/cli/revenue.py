"""``prepaid backfill`` and ``prepaid report``."""

import shutil
import sys
from contextlib import ExitStack
from datetime import date
from typing import TYPE_CHECKING

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import (
    MONTH,
    as_of_option,
    business_date,
    echo_json,
    json_option,
    with_database,
)
from prepaid_pipeline.language.english import count, money
from prepaid_pipeline.process import window
from prepaid_pipeline.revenue.report.content.versions import load
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.storage import ENDINGS, Store

if TYPE_CHECKING:
    from prepaid_pipeline.operations.backfill import Outcome
    from prepaid_pipeline.revenue.figures import Span


@click.command("backfill")
@click.argument("first", metavar="FROM", type=MONTH)
@click.argument("last", metavar="TO", type=MONTH)
@as_of_option
@click.option("--replay", is_flag=True, help="Replace figures as of a later date, too.")
@json_option
@with_database
def backfill_command(
    first: date,
    last: date,
    as_of: date | None,
    replay: bool,
    as_json: bool,
    settings: Settings,
    engine: Engine,
) -> None:
    """Materialise MRR and reports of the months FROM to TO (YYYY-MM), as one Dagster run.

    The current month is measured on the business date. A check that fails leaves the last good
    figures in place. A month that was computed as of a later date keeps its figures.
    """
    from prepaid_pipeline.revenue.figures import Span

    span = Span(first, last, business_date(as_of, settings))
    window.require_figures(engine, settings, span.as_of)
    outcome = _backfill(span, settings, replay)
    _progress("")
    for failure in outcome.failed_checks:
        click.echo(failure, err=True)
    if outcome.failed_checks:
        click.echo(f"prepaid: nothing was published for {span}.", err=True)
        sys.exit(1)
    for kept in outcome.kept:
        click.echo(kept, err=True)
    with engine.connect() as connection:
        report = load(connection, last, last)[-1]
    for missing in (report.document or {}).get("converted_missing") or ():
        click.echo(
            f"{last:%Y-%m} is not converted into {settings.reporting_currency}: there is no rate"
            f" for {missing} (import exchange_rates.csv)",
            err=True,
        )
    page = Store.of(settings).page(last)
    if as_json:
        figures = {"month": f"{last:%Y-%m}", "run_id": outcome.run_id, "report": page}
        echo_json({**figures, "version": report.version, "currencies": report.figures})
        return
    for f in report.figures or ():
        click.echo(
            f"MRR of {last:%Y-%m}: {money(f['mrr'])} {f['currency']}"
            f" over {count(f['active_plans'])} active plans"
        )
    if not report.figures:
        click.echo(f"Nothing is active in {last:%Y-%m}.")
    click.echo(f"Report ({report.name}): {page}")


@click.command("report")
@click.argument("month", type=MONTH)
@click.option(
    "--format",
    "kind",
    type=click.Choice(tuple(ENDINGS)),
    default="html",
    show_default=True,
    help="As a page, on paper, for spreadsheets (XLSX, or CSV files in a ZIP), for programs.",
)
@click.option(
    "--version",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="A closed version. Default: the latest, closed or not.",
)
@with_database
def report_command(
    month: date, kind: str, version: int | None, settings: Settings, engine: Engine
) -> None:
    """Print where a month's report (YYYY-MM) is; write the file if it is missing."""
    from prepaid_pipeline.revenue.report.formats import files

    click.echo(files.one(engine, settings, Store.of(settings), month, kind, version))


def _backfill(span: "Span", settings: Settings, replay: bool) -> "Outcome":
    from prepaid_pipeline.revenue import validation

    with ExitStack() as started:
        if span.is_long:
            # While Dagster is loaded here, which takes as long.
            started.callback(validation.stop)
            validation.start()
        from prepaid_pipeline.definitions import build_defs
        from prepaid_pipeline.operations import backfill

        return backfill.run(build_defs(), settings, span, _progress, replay=replay)


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        line = what.partition("\n")[0][: shutil.get_terminal_size().columns - 1]
        click.echo(f"\r\033[K{line}", nl=False, err=True)
