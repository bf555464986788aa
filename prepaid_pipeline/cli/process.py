"""``prepaid due`` and ``prepaid drain``."""

from dataclasses import asdict
from datetime import date

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import (
    as_of_option,
    business_date,
    echo_json,
    echo_table,
    json_option,
    with_database,
)
from prepaid_pipeline.cli.progress import counter
from prepaid_pipeline.context import Context
from prepaid_pipeline.language.english import count, grouped
from prepaid_pipeline.process.drain import Drained, drain
from prepaid_pipeline.process.due import due
from prepaid_pipeline.settings.load import Settings

# Dagster does not know of a drain that was killed: its plans are free again after this. A step
# renews the lease and takes seconds; one that is slower loses its plans and changes nothing.
LEASE_SECONDS = 120


@click.command("due")
@as_of_option
@json_option
@with_database
def due_command(as_of: date | None, as_json: bool, settings: Settings, engine: Engine) -> None:
    """Show what would open, with totals per currency. Changes nothing."""
    context = Context.of(settings, business_date(as_of, settings))
    found = due(engine, context)
    if as_json:
        echo_json({"as_of": context.as_of, "totals": found.totals, "held": found.held})
        return
    plans = sum(row["plans"] for row in found.totals)
    click.echo(f"{count(plans)} service plans are due on {context.as_of}.")
    titles = {key: key for key in ("currency", "kind", "plans", "net", "tax", "total")}
    if found.totals:
        echo_table(found.totals, titles)
    for row in found.held:
        click.echo(
            f"would be held, {row['reason_code']}: {count(row['plans'])};"
            f" such as: {grouped(row['text'])}"
        )


@click.command("drain")
@as_of_option
@json_option
@with_database
def drain_command(as_of: date | None, as_json: bool, settings: Settings, engine: Engine) -> None:
    """Do in this process what the daemon would, until nothing is ready.

    Opens and invoices what is due, matches payment records, settles what finance has approved,
    closes quality checks, expires ended terms, reminds customers who have not paid, cancels what
    nobody paid and sends emails. May run while the daemon does.
    """
    day = business_date(as_of, settings)
    context = Context.of(settings, day, actor="prepaid drain", lease_seconds=LEASE_SECONDS)
    with counter() as progress:
        done = drain(engine, settings, context, progress)
    if as_json:
        echo_json(asdict(done))
    else:
        click.echo(summary(done, context.as_of))


def summary(done: Drained, as_of: date) -> str:
    """What was done, one line per kind of work that there was."""
    lines = [
        (done.opened, f"{count(done.opened)} service plans opened"),
        (done.invoiced, f"{count(done.invoiced)} invoiced, waiting for payment and sign-off"),
        (sum(done.records.values()), "payment records: " + _counts(done.records)),
        (done.settled, f"{count(done.settled)} activated, provisioned and confirmed"),
        (sum(done.quality.values()), "quality checks: " + _counts(done.quality)),
        (done.held, f"{count(done.held)} held; see 'prepaid held list'"),
        (done.expired, f"{count(done.expired)} expired"),
        (done.reminded, f"{count(done.reminded)} payment reminders"),
        (done.cancelled_unpaid, f"{count(done.cancelled_unpaid)} cancelled, because nobody paid"),
        (done.mails_sent, f"{count(done.mails_sent)} emails sent"),
        (done.mails_retried, f"{count(done.mails_retried)} emails to be tried again later"),
        (done.mails_failed, f"{count(done.mails_failed)} emails failed; see 'prepaid mails list'"),
        (
            done.mails_unknown,
            f"{count(done.mails_unknown)} emails may have arrived; see 'prepaid mails list'",
        ),
        (done.mails_dropped, f"{count(done.mails_dropped)} emails dropped: no longer true"),
    ]
    said = [f"  {line}" for many, line in lines if many]
    return "\n".join([f"As of {as_of}:", *(said or ["  nothing was ready"])])


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count(many)} {what}" for what, many in counts.items() if many)
