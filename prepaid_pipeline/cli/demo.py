"""``prepaid demo``: sample data through all 13 steps, to an opened report."""

import os
import sys
import time
from datetime import date
from pathlib import Path

import click

from prepaid_pipeline.cli.common import echo_table
from prepaid_pipeline.context import Context
from prepaid_pipeline.database import connections
from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.operations import demo, invariants
from prepaid_pipeline.settings.load import Settings, load

FIRST_MONTH = date(2024, 11, 1)


@click.command("demo")
def demo_command() -> None:
    """Take the sample data through all 13 steps, to an opened report.

    Writes only into an empty database or one that it made itself; there it starts again. The demo
    plays in November 2026, whatever today is.
    """
    started = time.monotonic()
    settings = load()
    demo.start_clean(settings)
    click.echo(f"database ready in {settings.home}")
    engine = connections.engine(settings)
    try:
        demo.play(engine, settings, click.echo)
        click.echo(f"materialising MRR and the reports of {FIRST_MONTH:%Y-%m} to 2026-11 …")
        report = _materialise(settings)
        _require_sound(invariants.run(engine, Context.of(settings, demo.DAYS[-1])))
        click.echo("\nOutcome of the plans that the pipeline opened:")
        echo_table(
            [{"plans": o.plans, "outcome": o.outcome} for o in demo.outcomes(engine)],
            {"plans": "plans", "outcome": "outcome"},
        )
        click.echo("\nMonthly recurring revenue on 2026-11-20:")
        echo_table(demo.mrr(engine), {"currency": "", "mrr": "MRR", "plans": "active plans"})
    finally:
        engine.dispose()
    click.echo(f"\nAll invariants hold ('prepaid check'). {time.monotonic() - started:.0f} s.")
    click.echo(f"Emails: {settings.mail_directory}\nReport: {report}")
    click.echo(
        f"In the browser: 'prepaid user password {demo.FINANCE}', then 'prepaid up', and sign in at"
        f" the sign-off desk as {demo.FINANCE}."
    )
    _open(report)


def _materialise(settings: Settings) -> str:
    from prepaid_pipeline.definitions import build_defs
    from prepaid_pipeline.operations import backfill
    from prepaid_pipeline.revenue.figures import Span
    from prepaid_pipeline.storage import Store

    last = demo.DAYS[-1].replace(day=1)
    span = Span(FIRST_MONTH, last, demo.DAYS[-1])
    outcome = backfill.run(build_defs(), settings, span, lambda _: None)
    if outcome.failed_checks:
        raise PrepaidError("; ".join(outcome.failed_checks))
    return Store.of(settings).page(last)


def _require_sound(results: list[invariants.Checked]) -> None:
    broken = [finding for result in results for finding in result.findings]
    if broken:
        raise PrepaidError(f"{len(broken)} invariants are violated, the first: {broken[0]}")


def _open(report: str) -> None:
    """In a browser, where there is a screen and somebody to look at it."""
    screen = sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if screen and sys.stdout.isatty():
        click.launch(Path(report).as_uri() if Path(report).is_file() else report)
