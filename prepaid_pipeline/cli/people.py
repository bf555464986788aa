"""``prepaid user``, ``prepaid tasks`` and ``prepaid held``: people, and what they decide."""

import sys

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import (
    as_option,
    echo_json,
    echo_table,
    json_option,
    with_database,
)
from prepaid_pipeline.database import queries
from prepaid_pipeline.language.english import count
from prepaid_pipeline.people import accounts, decisions, entry
from prepaid_pipeline.process import story
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.teams import TEAMS

_KINDS = (
    "payment_verification",
    "payment_review",
    "payment_refund",
    "price_concession",
    "quality_check",
    "quality_follow_up",
)


@click.group("user")
def user_command() -> None:
    """The people who decide, and their teams."""


@user_command.command("add")
@click.argument("name")
@click.option("--team", type=click.Choice(TEAMS), required=True)
@click.option(
    "--email", default=None, metavar="ADDRESS", help="Where emails about overdue tasks go."
)
@with_database
def user_add(
    name: str,
    team: str,
    email: str | None,
    settings: Settings,  # noqa: ARG001
    engine: Engine,
) -> None:
    """Add a person (a database role without login) to a team."""
    made = accounts.add(engine, name, team, email)
    click.echo(f"{name} {'added to' if made else 'is already in'} {team}")
    _advise(engine, name)


@user_command.command("adopt")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@with_database
def user_adopt(names: tuple[str, ...], settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Let people who are in teams on this server read and decide in this database too."""
    accounts.adopt(engine, names)
    click.echo(f"{', '.join(names)} may read and decide here")
    _advise(engine, *names)


def _advise(engine: Engine, *names: str) -> None:
    for line in entry.advice_on(engine, names):
        click.echo(line, err=True)


@user_command.command("list")
@json_option
@with_database
def user_list(as_json: bool, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """List the people with their teams and whether they may sign in."""
    with engine.connect() as connection:
        asked = {"teams": list(TEAMS)}
        found = queries.statement("people/accounts", "people").execute(connection, asked)
        rows = [dict(row._mapping) for row in found]
    if as_json:
        echo_json(rows)
        return
    echo_table(rows, {"name": "name", "teams": "teams", "email": "address", "account": "account"})


@user_command.command("password")
@click.argument("name")
@click.option("--stdin", is_flag=True, help="Read it from standard input, one line.")
@with_database
def user_password(name: str, stdin: bool, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Set a person's password for the sign-off desk; ends their sessions."""
    from prepaid_pipeline.desk import passwords

    accounts.require_person(engine, name)
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True)
    accounts.set_password(engine, name, passwords.hashed(password))
    click.echo(f"the password of {name} is set; all their sessions have ended")


@user_command.command("sign-out")
@click.argument("name")
@with_database
def user_sign_out(name: str, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """End a person's sessions at the sign-off desk."""
    accounts.require_person(engine, name)
    ended = accounts.sign_out(engine, name)
    click.echo(f"{ended} session{'' if ended == 1 else 's'} of {name} ended")


@user_command.command("disable")
@click.argument("name")
@with_database
def user_disable(name: str, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Let a person neither sign in nor decide nor read any more; what they decided stays."""
    left = accounts.set_disabled(engine, name, True)
    others = "their other sessions" if left else "all their sessions"
    click.echo(f"{name} is disabled; {others} have ended")
    for line in left:
        click.echo(line, err=True)


@user_command.command("enable")
@click.argument("name")
@with_database
def user_enable(name: str, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Undo a disabling or a lock-out."""
    accounts.set_disabled(engine, name, False)
    click.echo(f"{name} is enabled")


@click.group("tasks")
def tasks_command() -> None:
    """Tasks that wait for a person's decision."""


@tasks_command.command("list")
@click.option("--kind", type=click.Choice(_KINDS), default=None)
@json_option
@with_database
def tasks_list(kind: str | None, as_json: bool, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """List the open tasks, oldest first."""
    with engine.connect() as connection:
        found = queries.statement("people/tasks", "open").execute(connection, {"kind": kind})
        rows = [dict(row._mapping) for row in found]
    if as_json:
        echo_json(rows)
        return
    titles = {
        "task_id": "task",
        "kind": "kind",
        "opened_on": "since",
        "invoice_number": "invoice",
        "customer_ref": "customer",
        "currency": "",
        "total": "total",
        "agrees": "agrees",
        "detail": "detail",
    }
    echo_table(rows, titles)


@tasks_command.command("approve")
@click.argument("tasks", type=int, nargs=-1)
@click.option("--all-agreeing", is_flag=True, help="Every open payment whose record agrees.")
@as_option
@click.option("--note", default=None)
@with_database
def tasks_approve(
    tasks: tuple[int, ...],
    all_agreeing: bool,
    person: str,
    note: str | None,
    settings: Settings,  # noqa: ARG001
    engine: Engine,
) -> None:
    """Approve payments, refunds and prices, or pass quality checks.

    A payment that no record pays cannot be approved: that would have no effect.
    """
    if bool(tasks) == all_agreeing:
        raise click.UsageError("name tasks, or say --all-agreeing")
    chosen = list(tasks)
    if all_agreeing:
        with decisions.acting(engine, person, decisions.ON_PAYMENTS) as connection:
            rows = queries.statement("people/tasks", "agreeing").execute(connection, {})
            chosen = [row.task_id for row in rows]
    recorded = decisions.decide(engine, person, chosen, "approve", note) if chosen else 0
    click.echo(f"{count(recorded)} approved by {person}")


@tasks_command.command("reject")
@click.argument("tasks", type=int, nargs=-1, required=True)
@as_option
@click.option("--note", required=True, help="Why.")
@with_database
def tasks_reject(
    tasks: tuple[int, ...],
    person: str,
    note: str,
    settings: Settings,  # noqa: ARG001
    engine: Engine,
) -> None:
    """Reject payments, or fail quality checks, with the reason."""
    recorded = decisions.decide(engine, person, list(tasks), "reject", note)
    click.echo(f"{count(recorded)} rejected by {person}")


@tasks_command.command("reassign")
@click.argument("tasks", type=int, nargs=-1, required=True)
@click.option("--to", default=None, metavar="PERSON", help="Default: the whole team again.")
@as_option
@click.option("--note", default=None)
@with_database
def tasks_reassign(
    tasks: tuple[int, ...],
    to: str | None,
    person: str,
    note: str | None,
    settings: Settings,  # noqa: ARG001
    engine: Engine,
) -> None:
    """Hand open tasks to a person in the same team; anybody in the team may still decide them."""
    changed = decisions.reassign(engine, person, list(tasks), to, note)
    click.echo(f"{count(changed)} handed to {to or 'the team'} by {person}")


@click.group("held")
def held_command() -> None:
    """Plans that wait until a person has corrected something."""


@held_command.command("list")
@json_option
@with_database
def held_list(as_json: bool, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """List the held plans with the reason and what can be done."""
    with engine.connect() as connection:
        found = queries.statement("people/holds", "held").execute(connection, {})
        rows = [dict(row._mapping) for row in found]
    if as_json:
        echo_json(rows)
        return
    titles = {
        "service_plan_id": "plan",
        "status": "status",
        "customer_ref": "customer",
        "held_at": "since",
        "text": "reason",
    }
    echo_table(rows, titles)


@held_command.command("release")
@click.argument("plan")
@as_option
@click.option("--note", required=True, help="What was done.")
@with_database
def held_release(plan: str, person: str, note: str, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Release a plan (its id or invoice number); it continues where it stopped."""
    service_plan_id = story.find(engine, plan)
    decisions.release(engine, person, service_plan_id, note)
    click.echo(f"service plan {service_plan_id} released by {person}")
