"""``prepaid desk``: the sign-off desk alone."""

import click
from sqlalchemy import Engine

from prepaid_pipeline.cli.common import with_database
from prepaid_pipeline.settings.load import Settings


@click.command("desk")
@with_database
def desk_command(settings: Settings, engine: Engine) -> None:  # noqa: ARG001
    """Serve the sign-off desk until Ctrl-C, without Dagster."""
    from prepaid_pipeline.desk import serve
    from prepaid_pipeline.desk.login import own_login
    from prepaid_pipeline.settings.desk import load

    desk = load()
    serve.require_free_port(desk)
    login = own_login(settings, desk)
    click.echo(f"Sign-off desk: {desk.url}   (stop with Ctrl-C)")
    serve.run(settings, desk, login)
