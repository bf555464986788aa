"""``prepaid subscriptions``: cancelling and changing what a customer has."""

from dataclasses import asdict
from datetime import date
from decimal import Decimal, InvalidOperation

import click
from sqlalchemy import Engine

from prepaid_pipeline.billing import subscriptions
from prepaid_pipeline.billing.subscriptions import Cancelled, Change, Ending, Waiting
from prepaid_pipeline.cli.common import (
    DATE,
    as_of_option,
    as_option,
    business_date,
    echo_json,
    json_option,
    with_database,
)
from prepaid_pipeline.cli.dates import require_meant, yes_option
from prepaid_pipeline.language.english import money
from prepaid_pipeline.settings.load import Settings


class _Price(click.ParamType[Decimal]):
    name = "price"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        try:
            price = Decimal(str(value))
        except InvalidOperation:
            price = Decimal("NaN")
        if not price.is_finite():
            self.fail(f"{value!r} is not a price: expected a number such as 12.50", param, ctx)
        return price


@click.group("subscriptions")
def subscriptions_command() -> None:
    """Cancel subscriptions, or change them to another plan, price or add-ons."""


@subscriptions_command.command("cancel")
@click.argument("name", metavar="PLAN|SUBSCRIPTION_REF")
@as_option
@click.option("--note", required=True, help="Why.")
@click.option(
    "--at-once", is_flag=True, help="Not at the end of the term; unused days are credited."
)
@click.option(
    "--on",
    type=DATE,
    default=None,
    metavar="DATE",
    help="With --at-once: a day in the past. Default: today.",
)
@as_of_option
@yes_option
@json_option
@with_database
def subscriptions_cancel(
    name: str,
    person: str,
    note: str,
    at_once: bool,
    on: date | None,
    as_of: date | None,
    yes: date | None,
    as_json: bool,
    settings: Settings,
    engine: Engine,
) -> None:
    """Cancel a subscription, or one plan (its id or invoice number), at the end of its term.

    A plan that is not active yet is cancelled with its invoice. With --at-once the running term
    ends today: what is left of it is credited, and finance is asked to pay it back.
    """
    if on is not None and not at_once:
        raise click.UsageError("--on needs --at-once: without it, the term runs to its end")
    day = business_date(as_of, settings)
    require_meant(yes, day, settings, engine)
    named = subscriptions.find(engine, name)
    done = subscriptions.cancel(engine, person, named, note, at_once=at_once, on=on, as_of=day)
    if as_json:
        echo_json(asdict(done))
        return
    click.echo(_leaves(done))
    for ending in done.plans:
        click.echo(_ends(ending))


@subscriptions_command.command("change")
@click.argument("name", metavar="SUBSCRIPTION_REF")
@click.option("--to", "plan_code", required=True, metavar="PLAN_CODE", help="The new plan.")
@click.option(
    "--price",
    type=_Price(),
    default=None,
    help="The subscription's own net price for one term. Default: the list price.",
)
@click.option(
    "--addons",
    default=None,
    metavar="A;B",
    help="The new add-ons; '' for none. Default: unchanged.",
)
@click.option(
    "--on",
    type=DATE,
    default=None,
    metavar="DATE",
    help="A day inside the running term. Default: today.",
)
@click.option("--at-renewal", is_flag=True, help="From the next term on.")
@as_option
@click.option("--note", required=True, help="Why.")
@as_of_option
@yes_option
@json_option
@with_database
def subscriptions_change(
    name: str,
    plan_code: str,
    price: Decimal | None,
    addons: str | None,
    on: date | None,
    at_renewal: bool,
    person: str,
    note: str,
    as_of: date | None,
    yes: date | None,
    as_json: bool,
    settings: Settings,
    engine: Engine,
) -> None:
    """Change a subscription to another plan, price or add-ons.

    In the middle of a term a new term begins on that day; its invoice is paid first with the days
    of the running term that are not used.
    """
    if at_renewal and on is not None:
        raise click.UsageError("--on is a day inside the running term: leave out --at-renewal")
    day = business_date(as_of, settings)
    require_meant(yes, day, settings, engine)
    codes = None if addons is None else [c.strip() for c in addons.split(";") if c.strip()]
    asked = Change(plan_code, price, codes, None if at_renewal else on or day)
    named = subscriptions.find(engine, name)
    waiting = subscriptions.change(engine, person, named, asked, note, as_of=day)
    if as_json:
        echo_json({"waiting": waiting and asdict(waiting)})
    else:
        click.echo(_changes(asked, waiting))


def _leaves(done: Cancelled) -> str:
    if done.leaves_on is None:
        return f"subscription {done.subscription_ref} stays"
    return f"subscription {done.subscription_ref} is cancelled as of {done.leaves_on}"


def _ends(ending: Ending) -> str:
    text = f"service plan {ending.service_plan_id} {ending.outcome}"
    if ending.ends_on is not None:
        text += f" on {ending.ends_on}"
    if ending.credited is not None and ending.refund is not None:
        text += (
            f"; credit note {ending.credit_note_number} for {money(ending.credited)}"
            f" {ending.currency}, to refund: {money(ending.refund)}"
        )
    return text


def _changes(asked: Change, waiting: Waiting | None) -> str:
    if asked.on is not None and waiting is not None:
        return (
            f"service plan {waiting.service_plan_id}: {waiting.plan_code} from"
            f" {waiting.planned_start} to {waiting.end_date}, once it is paid"
        )
    if waiting is None or not waiting.retrieved:
        return f"{asked.plan_code} from the next term on"
    if waiting.invoice_number is None:
        return (
            f"{asked.plan_code} from the term after the next one on: service plan"
            f" {waiting.service_plan_id} is being invoiced for {waiting.plan_code}"
        )
    return (
        f"{asked.plan_code} from the term after the next one on: that one is invoiced for"
        f" {waiting.plan_code}. To change it too: prepaid invoices reissue {waiting.invoice_number}"
    )
