"""``prepaid customers``: erasing personal data."""

from dataclasses import asdict
from datetime import date

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import (
    as_of_option,
    as_option,
    business_date,
    echo_json,
    json_option,
    with_database,
)
from prepaid_pipeline.language.english import count
from prepaid_pipeline.operations import erasure
from prepaid_pipeline.settings.load import Settings


@click.group("customers")
def customers_command() -> None:
    """Personal data of customers."""


@customers_command.command("erase")
@click.argument("ref", metavar="CUSTOMER_REF")
@as_option
@click.option("--reason", required=True, help="Why, such as the customer's request and its date.")
@as_of_option
@json_option
@with_database
def customers_erase(
    ref: str,
    person: str,
    reason: str,
    as_of: date | None,
    as_json: bool,
    settings: Settings,
    engine: Engine,
) -> None:
    """Erase a customer's personal data permanently (customer success, engineering).

    Names, addresses, emails and notes about them go; amounts, the country of the tax and
    the audit log stay. Refused while anything about the customer is under way.
    """
    day = business_date(as_of, settings)
    done = erasure.erase(engine, settings, person, ref, reason, day)
    if as_json:
        echo_json(asdict(done))
        return
    click.echo(
        f"Customer {ref} is erased; emails emptied: {count(done.mails)},"
        f" files deleted: {count(done.files)}."
        " Backups made earlier still have the data."
    )
