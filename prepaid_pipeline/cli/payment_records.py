"""``prepaid payments list|suggestions|assign``: what finance does about parked records."""

from datetime import date

import click
from sqlalchemy import Engine

from prepaid_pipeline.billing import payment_matching
from prepaid_pipeline.cli.common import (
    as_of_option,
    as_option,
    business_date,
    echo_json,
    echo_table,
    json_option,
    with_database,
)
from prepaid_pipeline.context import Context
from prepaid_pipeline.database import queries
from prepaid_pipeline.people import decisions
from prepaid_pipeline.settings.load import Settings

_OUTCOMES = ("matched", "parked", "superseded", "waiting")


@click.command("list")
@click.option("--outcome", type=click.Choice(_OUTCOMES), default=None)
@json_option
@with_database
def payments_list(outcome: str | None, as_json: bool, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """List payment records with their outcome and its reason."""
    titles = {
        "transaction_id": "record",
        "provider_ref": "reference",
        "invoice_number": "invoice",
        "amount": "amount",
        "currency": "",
        "status": "status",
        "outcome": "outcome",
        "reason": "reason",
    }
    _show(engine, "records", {"outcome": outcome}, titles, as_json)


@click.command("suggestions")
@json_option
@with_database
def payments_suggestions(as_json: bool, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """List open invoices that parked payments may be meant for. Nothing is applied."""
    titles = {
        "transaction_id": "record",
        "provider_ref": "reference",
        "amount": "amount",
        "currency": "",
        "record_invoice_number": "it names",
        "invoice_number": "invoice",
        "customer_ref": "customer",
        "because": "because",
    }
    _show(engine, "suggestions", {}, titles, as_json)


@click.command("assign")
@click.argument("record", type=int)
@click.argument("invoice")
@as_option
@click.option("--note", required=True, help="Why this record pays this invoice.")
@as_of_option
@with_database
def payments_assign(
    record: int,
    invoice: str,
    person: str,
    note: str,
    as_of: date | None,
    settings: Settings,
    engine: Engine,
) -> None:
    """Say which open invoice (its number) a parked payment record pays."""
    decisions.assign(engine, person, record, invoice, note)
    day = business_date(as_of, settings)
    payment_matching.match_payments(
        engine, Context.of(settings, day, actor="prepaid payments assign")
    )
    with engine.connect() as connection:
        statement = queries.statement("billing/payments", "outcome")
        found = statement.execute(connection, {"record": record}).one()
    why = f": {found.reason}" if found.reason else ""
    click.echo(f"record {record} assigned to {invoice} by {person}; it is {found.outcome}{why}")


def _show(
    engine: Engine, part: str, params: dict[str, str | None], titles: dict[str, str], as_json: bool
) -> None:
    with engine.connect() as connection:
        found = queries.statement("billing/payments", part).execute(connection, params)
        rows = [dict(row._mapping) for row in found]
    if as_json:
        echo_json(rows)
    else:
        echo_table(rows, titles)
