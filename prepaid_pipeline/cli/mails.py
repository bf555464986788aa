"""``prepaid mails``: what has not reached the customers, and what support does about it."""

import click
from sqlalchemy import Engine

from prepaid_pipeline.addresses import recipient_address
from prepaid_pipeline.cli.common import echo_json, echo_table, json_option, with_database
from prepaid_pipeline.database import queries
from prepaid_pipeline.language.english import count
from prepaid_pipeline.people import decisions
from prepaid_pipeline.settings.load import Settings

_STATES = ("pending", "sending", "failed", "unknown", "dropped", "sent")


@click.group("mails")
def mails_command() -> None:
    """Emails to customers that did not reach them."""


@mails_command.command("list")
@click.option("--status", type=click.Choice(_STATES), default=None)
@json_option
@with_database
def mails_list(
    status: str | None,
    as_json: bool,
    settings: Settings,  # noqa: ARG001
    engine: Engine,
) -> None:
    """List the emails that wait, failed or may have arrived, or those of one status; the latest
    1,000.
    """
    with engine.connect() as connection:
        found = queries.statement("mail/undelivered", "list").execute(
            connection, {"status": status}
        )
        rows = [dict(row._mapping) for row in found]
    if as_json:
        echo_json(rows)
        return
    titles = {
        "email_id": "email",
        "template": "template",
        "occasion": "occasion",
        "customer_ref": "customer",
        "recipient": "to",
        "created_at": "ordered",
        "status": "status",
        "attempts": "attempts",
        "last_error": "reason",
    }
    echo_table(rows, titles)


@mails_command.command("resend")
@click.argument("mails", type=int, nargs=-1, required=True)
@click.option("--as", "person", required=True, metavar="PERSON", help="Who resends it.")
@with_database
def mails_resend(mails: tuple[int, ...], person: str, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Send failed and unknown emails again, unchanged; the job send_emails does it."""
    resent = decisions.resend(engine, person, list(mails))
    click.echo(f"{count(resent)} will be resent, requested by {person}")


@mails_command.command("settle")
@click.argument("mails", type=int, nargs=-1, required=True)
@click.option("--as", "person", required=True, metavar="PERSON", help="Who found out.")
@click.option("--note", required=True, help="How you know.")
@with_database
def mails_settle(
    mails: tuple[int, ...],
    person: str,
    note: str,
    settings: Settings,  # noqa: ARG001
    engine: Engine,
) -> None:
    """Take emails off the list without sending them: an unknown one has arrived, a failed one is no
    longer needed.
    """
    settled = decisions.settle_mails(engine, person, list(mails), note)
    click.echo(f"{count(settled)} settled by {person}")


@mails_command.command("readdress")
@click.argument("mail", type=int)
@click.option("--to", "address", required=True, help="The customer's address from now on.")
@click.option("--as", "person", required=True, metavar="PERSON", help="Whose decision this is.")
@with_database
def mails_readdress(
    mail: int,
    address: str,
    person: str,
    settings: Settings,  # noqa: ARG001
    engine: Engine,
) -> None:
    """Send a failed email to another address, which becomes the customer's."""
    decisions.correct_address(engine, person, mail, _recipient(address))
    click.echo(f"email {mail} goes to {address}, requested by {person}")


def _recipient(address: str) -> str:
    """An address without display name. Raises UsageError for an invalid one."""
    try:
        return recipient_address(address, None).addr_spec
    except ValueError as error:
        raise click.UsageError(f"--to: {error}") from error
