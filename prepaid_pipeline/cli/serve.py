"""``prepaid serve``: one process alone."""

import click

from prepaid_pipeline import logs
from prepaid_pipeline.settings.load import load

# As prepaid_pipeline.operations.service.serve has them, which takes seconds to load.
_PARTS = ("code-server", "daemon", "webserver", "read-only", "metrics")


@click.command("serve")
@click.argument("part", type=click.Choice(_PARTS), metavar="|".join(_PARTS))
def serve_command(part: str) -> None:
    """Run one process of the installation, for systemd or the like to supervise.

    'prepaid up' runs all of them and the embedded database. The sign-off desk alone is
    'prepaid desk'.
    """
    from prepaid_pipeline.operations.service import serve

    settings = load()
    logs.configure(settings)
    serve.run(settings, part)
