"""Commands that run the installation: up, down, migrate, db, doctor."""

import logging
from dataclasses import asdict

import click
from sqlalchemy import Engine, make_url

from prepaid_pipeline import logs
from prepaid_pipeline.audit import seals
from prepaid_pipeline.cli.common import echo_json, json_option, with_database
from prepaid_pipeline.database import connections, embedded, migrations, urls
from prepaid_pipeline.errors import PrepaidError, SettingError
from prepaid_pipeline.operations import installation
from prepaid_pipeline.settings.load import Settings, load


@click.command("up")
def up_command() -> None:
    """Start everything and keep it up until Ctrl-C.

    The database (the embedded one unless PREPAID_DATABASE_URL is set), its migrations, and Dagster
    with its UI on 127.0.0.1, port PREPAID_PORT, and its daemon. While nobody has a password it
    prints a link that signs you in to the UI, once.
    """
    from prepaid_pipeline.operations.service import up

    settings = load()
    logs.configure(settings)
    log = logging.getLogger(up.__name__)
    as_json = settings.log_format == "json"
    up.run(settings, (lambda line: logs.event(log, line)) if as_json else click.echo)


@click.command("down")
def down_command() -> None:
    """Stop the embedded PostgreSQL of PREPAID_HOME. Other databases are left alone."""
    from prepaid_pipeline.operations.service.lock import holder

    settings = load()
    url = embedded.running_url(settings.home)
    if url is None:
        click.echo(f"No embedded PostgreSQL runs in {settings.home}.")
        return
    engine = connections.engine_for(make_url(url))
    try:
        running = holder(engine)
    finally:
        engine.dispose()
    if running:
        raise PrepaidError(f"'prepaid up' is using it ({running}). Stop that first (Ctrl-C there).")
    embedded.stop(settings.home)
    click.echo("Stopped.")


@click.command("sign-in-link")
@with_database
def sign_in_link_command(settings: Settings, engine: Engine) -> None:
    """Print a link that signs you in to the Dagster UI, once.

    Only while nobody has a password, and only on this machine. After that people sign in with
    their passwords ('prepaid user password').
    """
    from prepaid_pipeline.operations.dagster_ui import links
    from prepaid_pipeline.settings.desk import load as load_desk

    link = links.make(engine, settings, load_desk())
    if link is None:
        raise PrepaidError(
            "People sign in with a password or at your provider, so there are no links. Whoever"
            " starts or stops something in the UI needs an account in the team engineering:"
            " 'prepaid user add NAME --team engineering' and 'prepaid user password NAME'."
        )
    click.echo(link)


@click.command("migrate")
def migrate_command() -> None:
    """Bring the database to the newest schema. Harmless when it is already there.

    It also tells the database PREPAID_TIMEZONE, in which it counts its days, and closes it to all
    roles of the server but its own people.
    """
    settings = load()
    engine = connections.engine(settings)
    try:
        for line in installation.migrate(engine, settings):
            click.echo(line)
        # Here and not in the middle of the first batch: an old log may have millions of entries.
        seals.seal_after(engine)
    finally:
        engine.dispose()
    click.echo(f"The database is at migration {migrations.newest()}.")


@click.group("db")
def db_command() -> None:
    """The database and how to reach it."""


@db_command.command("url")
def db_url() -> None:
    """Print the database's URL: psql "$(prepaid db url)"."""
    click.echo(urls.for_libpq(connections.url(load())))


@click.command("metrics")
@with_database
def metrics_command(settings: Settings, engine: Engine) -> None:
    """Print the metrics in Prometheus' text format."""
    from prepaid_pipeline.operations.service import metrics

    click.echo(metrics.text(engine, settings), nl=False)


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Say what is wrong with the set-up and what to do. Exit 1 if anything is."""
    from prepaid_pipeline.operations.service.doctor import Finding, examine

    findings = list[Finding]()

    def note(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            mark = (
                click.style("ok   ", fg="green") if finding.ok else click.style("WRONG", fg="red")
            )
            click.echo(f"{mark}  {finding.check}: {finding.text}")

    try:
        settings = load()
    except SettingError as error:
        note(Finding("settings", False, str(error)))
    else:
        note(Finding("settings", True, f"home {settings.home}, time zone {settings.timezone}"))
        for finding in examine(settings):
            note(finding)
    if as_json:
        echo_json([asdict(finding) for finding in findings])
    if not all(finding.ok for finding in findings):
        raise click.exceptions.Exit(1)
