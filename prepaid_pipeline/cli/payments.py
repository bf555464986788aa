"""``prepaid payments``: what payment providers and banks say, and what becomes of it."""

from dataclasses import asdict
from pathlib import Path

import click
from sqlalchemy import Engine

from prepaid_pipeline.billing.providers import formats
from prepaid_pipeline.cli.common import echo_json, json_option, with_database
from prepaid_pipeline.cli.payment_records import (
    payments_assign,
    payments_list,
    payments_suggestions,
)
from prepaid_pipeline.cli.progress import progress_bar
from prepaid_pipeline.errors import ImportRefused
from prepaid_pipeline.settings.load import Settings


@click.group("payments")
def payments_command() -> None:
    """Records of payment providers and banks."""


for _command in (payments_list, payments_suggestions, payments_assign):
    payments_command.add_command(_command)


@payments_command.command("import")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE…",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(formats.BY_NAME)),
    default=None,
    help="What the files are: "
    + "; ".join(f"{found.name}, {found.title}" for found in formats.FORMATS)
    + ". Default: recognised from its content.",
)
@click.option(
    "--provider",
    default=None,
    metavar="NAME",
    help="The provider's name in the records. Default: stripe, or the statement's account.",
)
@json_option
@with_database
def payments_import(
    files: tuple[Path, ...],
    file_format: str | None,
    provider: str | None,
    as_json: bool,
    settings: Settings,
    engine: Engine,
) -> None:
    """Import files of payment providers and banks.

    Each file is taken as a whole or not at all; the same file again adds nothing.
    docs/payments-import.md describes what becomes a record.
    """
    from prepaid_pipeline.billing.providers.loading import import_payments

    if provider is not None and not 0 < len(provider.strip()) <= 200:
        raise click.UsageError("--provider: expected a name of 1 to 200 characters")
    sizes = [path.stat().st_size for path in files]
    reports = []
    with progress_bar() as on_progress:
        for number, path in enumerate(files):

            def on_read(size: int, number: int = number, name: str = path.name) -> None:
                if on_progress is not None:
                    on_progress(name, sum(sizes[:number]) + size, sum(sizes))

            report = import_payments(
                engine,
                path,
                file_format=file_format,
                provider=provider and provider.strip(),
                timezone=settings.timezone,
                on_read=on_read,
            )
            reports.append(report)
    if as_json:
        echo_json([asdict(report) for report in reports])
    else:
        for report in reports:
            click.echo(
                f"{report.file}: {report.status}, {report.rows:,} rows read, {report.landed:,} "
                f"records added, {report.known:,} already known"
            )
            _echo_counts("not a customer's payment, skipped", report.skipped)
            _echo_counts("unknown, kept as the provider's own status", report.unknown)
            for message in report.errors:
                click.echo(message, err=True)
    if refused := [report.file for report in reports if report.status == "refused"]:
        raise ImportRefused(f"nothing was imported from {', '.join(refused)}; see what is listed")


def _echo_counts(what: str, counts: dict[str, int]) -> None:
    if counts:
        told = ", ".join(f"{count:,} {word}" for word, count in sorted(counts.items()))
        click.echo(f"  {what}: {told}")
