"""``prepaid story`` and ``prepaid check``: why a plan is what it is, and whether all is well."""

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
    shown,
    with_database,
)
from prepaid_pipeline.context import Context
from prepaid_pipeline.language.english import words
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.process import events, story
from prepaid_pipeline.settings.load import Settings


@click.command("story")
@click.argument("plan")
@json_option
@with_database
def story_command(plan: str, as_json: bool, settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Tell why a plan (its id or invoice number) is what it is, and everything about it in order.

    Its audit entries are compared with their seals. Exit 1 if one was changed.
    """
    told = story.tell(engine, story.find(engine, plan))
    if as_json:
        proof = asdict(told.proof)
        echo_json({"plan": told.plan, "why": told.why, "events": told.events, "proof": proof})
        return
    click.echo(f"{told.why}\n")
    for key, value in told.plan.items():
        click.echo(f"{words(key):16} {shown(key, value)}")
    click.echo("")
    titles = {"at": "when", "event": "event", "actor": "who", "what": "what"}
    echo_table([events.shown(event) for event in told.events], titles)
    click.echo(f"\n{told.proof}")
    if told.proof.changed:
        raise click.exceptions.Exit(1)


@click.command("check")
@as_of_option
@json_option
@with_database
def check_command(as_of: date | None, as_json: bool, settings: Settings, engine: Engine) -> None:
    """Run every invariant and list violations. Exit 1 if there are any.

    What is no violation and still to be known is listed below them, as a note (not in --json).
    """
    context = Context.of(settings, business_date(as_of, settings))
    results = invariants.run(engine, context)
    if as_json:
        echo_json([{"check": r.name, "rule": r.rule, "findings": r.findings} for r in results])
    else:
        for result in results:
            _echo_checked("FAIL" if result.findings else "ok  ", result)
        for notice in invariants.notices(engine, context):
            _echo_checked("note", notice)
    if any(result.findings for result in results):
        raise click.exceptions.Exit(1)


def _echo_checked(mark: str, checked: invariants.Checked) -> None:
    click.echo(f"{mark}  {checked.rule}")
    for finding in checked.findings:
        click.echo(f"      - {finding}")
