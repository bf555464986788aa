"""``prepaid mails``: what has not reached the customers, and sending it again."""

import click
from sqlalchemy import Engine

from prepaid_pipeline import people, queries
from prepaid_pipeline.cli.common import echo_json, echo_table, json_option, with_database
from prepaid_pipeline.settings import Settings

_STATES = ("pending", "sending", "failed", "dropped", "sent")


@click.group("mails")
def mails_command() -> None:
    """The mails to customers."""


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
    """List the mails that wait or failed, or those of one status; the latest 1,000."""
    with engine.connect() as connection:
        found = queries.statement("cli/mails", "list").execute(connection, {"status": status})
        rows = [dict(row._mapping) for row in found]
    if as_json:
        echo_json(rows)
        return
    titles = {
        "email_id": "mail", "template": "template", "occasion": "occasion",
        "customer_ref": "customer", "recipient": "to", "created_at": "ordered",
        "status": "status", "attempts": "attempts", "last_error": "reason",
    }  # fmt: skip
    echo_table(rows, titles)


@mails_command.command("resend")
@click.argument("mails", type=int, nargs=-1, required=True)
@click.option("--as", "person", required=True, metavar="PERSON", help="Who wants it sent again.")
@with_database
def mails_resend(mails: tuple[int, ...], person: str, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Send failed mails again, as they were; the job send_emails takes them up."""
    resent = people.resend(engine, person, list(mails))
    click.echo(f"{resent} to be sent again, asked for by {person}")
