"""``prepaid invoices``: the list for finance, voiding and reissuing."""

from collections.abc import Callable
from datetime import date

import click
from sqlalchemy import Engine

from prepaid_pipeline.billing import invoices
from prepaid_pipeline.cli.common import (
    as_of_option,
    as_option,
    business_date,
    echo_csv,
    echo_json,
    echo_table,
    json_option,
    with_database,
)
from prepaid_pipeline.cli.dates import require_meant, yes_option
from prepaid_pipeline.settings.load import Settings

_COLUMNS = {
    "invoice_number": "number",
    "customer_ref": "customer",
    "name": "name",
    "status": "status",
    "issued_on": "issued",
    "due_on": "due",
    "days_overdue": "overdue",
    "currency": "",
    "total": "total",
    "credit": "credit",
    "payable": "payable",
    "received": "received",
    "held": "held",
}


@click.group("invoices")
def invoices_command() -> None:
    """Invoices: which are open, and voiding one."""


@invoices_command.command("list")
@click.option("--status", type=click.Choice(["Open", "Paid", "Void", "all"]), default="Open")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for a spreadsheet.")
@as_of_option
@json_option
@with_database
def invoices_list(
    status: str,
    as_csv: bool,
    as_of: date | None,
    as_json: bool,
    settings: Settings,
    engine: Engine,
) -> None:
    """List invoices, the earliest due date first, with the days they are overdue."""
    if as_csv and as_json:
        raise click.UsageError("either --csv or --json")
    wanted = None if status == "all" else status
    rows = invoices.listed(engine, business_date(as_of, settings), wanted)
    if as_json:
        echo_json(rows)
    elif as_csv:
        echo_csv(rows, {key: key for key in _COLUMNS})
    else:
        echo_table(rows, _COLUMNS)


def _taking_back(word: str, help_text: str, reissue: bool, said: str) -> Callable[..., None]:
    @invoices_command.command(word, help=help_text)
    @click.argument("number")
    @as_option
    @click.option("--note", required=True, help="Why.")
    @as_of_option
    @yes_option
    @with_database
    def command(
        number: str,
        person: str,
        note: str,
        as_of: date | None,
        yes: date | None,
        settings: Settings,
        engine: Engine,
    ) -> None:
        day = business_date(as_of, settings)
        require_meant(yes, day, settings, engine)
        plan = invoices.void(engine, person, number, note, reissue=reissue, as_of=day)
        click.echo(f"invoice {number} is void; service plan {plan} {said}")

    return command


invoices_void = _taking_back(
    "void",
    "Void an open invoice. Its number stays used; its plan is held until it is released (a new"
    " invoice is issued) or cancelled.",
    False,
    "is held: release it for a new invoice, or cancel it",
)
invoices_reissue = _taking_back(
    "reissue",
    "Void an open invoice and let the next run issue a new one for what the subscription has.",
    True,
    "gets a new invoice with the next run",
)
