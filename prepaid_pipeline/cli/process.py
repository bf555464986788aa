"""``prepaid due`` and ``prepaid drain``."""

from dataclasses import asdict
from datetime import date

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import (
    DATE,
    as_of_option,
    business_date,
    echo_json,
    echo_table,
    json_option,
    with_database,
)
from prepaid_pipeline.cli.dates import is_answered, is_meant, yes_option
from prepaid_pipeline.cli.progress import counter
from prepaid_pipeline.context import Context
from prepaid_pipeline.language.english import count, grouped
from prepaid_pipeline.process import window
from prepaid_pipeline.process.drain import Drained, drain
from prepaid_pipeline.process.due import due
from prepaid_pipeline.process.undo import undo
from prepaid_pipeline.settings.load import Settings

# Dagster does not know of a drain that was killed: its plans are free again after this. A step
# renews the lease and takes seconds; one that is slower loses its plans and changes nothing.
LEASE_SECONDS = 120
_SKIPPED = {
    "opened": "service plans to open or invoice",
    "settled": "to activate",
    "expired": "to expire",
    "reminded": "payment reminders",
    "cancelled_unpaid": "to cancel, because nobody paid",
    "overdue_mails": "emails about overdue tasks",
}


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
@yes_option
@json_option
@with_database
def drain_command(
    as_of: date | None, yes: date | None, as_json: bool, settings: Settings, engine: Engine
) -> None:
    """Do in this process what the daemon would, until nothing is ready.

    Opens and invoices what is due, matches payment records, settles what finance has approved,
    closes quality checks, expires ended terms, reminds customers who have not paid, cancels what
    nobody paid and sends emails. May run while the daemon does.

    For a date after today, nothing expires and nobody is reminded or cancelled until you say that
    the date is meant; more than PREPAID_LEAD_DAYS after today, nothing is opened or activated
    either. A database that has only ever been given its dates by --as-of does not ask.
    """
    day = business_date(as_of, settings)
    said = is_meant(yes, day)
    context = Context.of(settings, day, actor="prepaid drain", lease_seconds=LEASE_SECONDS)
    found = window.enter(engine, settings, context, real_day=as_of is None)
    final = said or not found.is_later(day)
    opening = said or not found.is_too_early_to_open(context)
    with counter() as progress:
        done = drain(engine, settings, context, progress, final=final, opening=opening)
    if as_json:
        echo_json(asdict(done))
        return
    click.echo(summary(done, day))
    if any(done.skipped.values()):
        _ask_for_the_rest(engine, settings, context, found.today)


def _ask_for_the_rest(engine: Engine, settings: Settings, context: Context, today: date) -> None:
    day = context.as_of
    later = f"{day} is {(day - today).days:,} days after today, {today}"
    if not is_answered():
        click.echo(f"{later}. If it is meant: --yes-this-is-date {day}", err=True)
    elif click.confirm(f"{later}. What was skipped is hard to take back. Do it?"):
        with counter() as progress:
            done = drain(engine, settings, context, progress)
        click.echo(summary(done, day))


@click.command("undo")
@click.argument("day", metavar="DATE", type=DATE)
@json_option
@with_database
def undo_command(day: date, as_json: bool, settings: Settings, engine: Engine) -> None:
    """Take back what was done for a business date that has not come.

    Terms that expired too early are active again; plans that were cancelled because nobody had paid
    get a new invoice with the next run; emails that have not left are dropped. Says which customers
    were told what is not true.
    """
    done = undo(engine, settings, day)
    if as_json:
        echo_json(asdict(done))
        return
    lines = [
        (done.active_again, f"{done.active_again} terms that had expired are active again"),
        (done.waiting_again, f"{done.waiting_again} plans get a new invoice with the next run"),
        (done.mails_dropped, f"{done.mails_dropped} emails dropped"),
        (len(done.left), f"stay cancelled (docs/calendar.md): plans {_listed(done.left)}"),
        (len(done.told), "customers who were told what is not true, and should hear from you:"),
    ]
    said = [f"  {line}" for count, line in lines if count]
    click.echo("\n".join([f"Done for {day}:", *(said or ["  nothing to take back"])]))
    if done.told:
        echo_table(done.told, {key: key.replace("_", " ") for key in done.told[0]})


def _listed(plans: list[int]) -> str:
    return ", ".join(str(plan) for plan in plans)


def summary(done: Drained, as_of: date) -> str:
    """What was done, one line per kind of work that there was, and what was not."""
    skipped = done.skipped
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
        *((1, f"passed over what is locked: {who}") for who in done.blocked_by),
        *(
            (
                skipped.get(key),
                f"skipped, the date is after today: {count(skipped.get(key, 0))} {what}",
            )
            for key, what in _SKIPPED.items()
        ),
        *((1, f"nobody is reminded or cancelled for this day: {text}") for text in done.silent),
    ]
    said = [f"  {line}" for many, line in lines if many]
    return "\n".join([f"As of {as_of}:", *(said or ["  nothing was ready"])])


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count(many)} {what}" for what, many in counts.items() if many)
