"""prepaid import: CSV files into the database."""

from dataclasses import asdict
from datetime import date
from pathlib import Path

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import (
    as_of_option,
    business_date,
    echo_json,
    json_option,
    with_database,
)
from prepaid_pipeline.cli.progress import progress_bar
from prepaid_pipeline.context import Context
from prepaid_pipeline.errors import ImportRefused
from prepaid_pipeline.importer.files import files
from prepaid_pipeline.importer.loading import import_directory
from prepaid_pipeline.importer.reports import FileReport
from prepaid_pipeline.process import window
from prepaid_pipeline.settings.load import Settings


@click.command("import")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@as_of_option
@json_option
@with_database
def import_command(
    directory: Path, as_of: date | None, as_json: bool, settings: Settings, engine: Engine
) -> None:
    """Import the CSV files in DIRECTORY.

    customers.csv, plans.csv, addons.csv, tax_rates.csv, subscriptions.csv, discounts.csv,
    service_plans.csv, transactions.csv and exchange_rates.csv, each if it exists, all or nothing
    per file. The same files again change nothing. docs/import.md describes the columns.
    """
    with progress_bar() as on_progress:
        reports = import_directory(
            engine,
            directory,
            as_of=business_date(as_of, settings),
            grace_days=settings.grace_days,
            timezone=settings.timezone,
            reporting_currency=settings.reporting_currency,
            on_progress=on_progress,
        )
    context = Context.of(settings, as_of, actor="import")
    window.enter(engine, settings, context, real_day=as_of is None)
    if as_json:
        echo_json([asdict(report) for report in reports])
    else:
        for report in reports:
            _echo(report)
    known = {file.filename for file in files(settings.timezone)}
    for path in sorted(directory.glob("*.csv")):
        if path.name not in known:
            click.echo(f"{path.name}: ignored, it is not the name of an import file", err=True)
    refused = [report.file for report in reports if report.status in ("refused", "skipped")]
    if refused:
        raise ImportRefused(
            f"nothing was imported from {', '.join(refused)}; correct what is listed, then import "
            "the directory again"
        )


def _echo(report: FileReport) -> None:
    click.echo(
        f"{report.file:<19} {report.status:<10} {report.rows:>9,} rows {report.added:>9,} added "
        f"{report.changed:>9,} changed"
    )
    for message in (*report.errors, *report.differences):
        click.echo(message, err=True)
