"""``prepaid serve``: one process alone."""

import click

from prepaid_pipeline import logs
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.load import load

# As prepaid_pipeline.operations.service.serve has them, which takes seconds to load.
_PARTS = ("code-server", "daemon", "webserver", "metrics")


class _Part(click.Choice[str]):
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "read-only":
            raise SettingError(
                "There is no read-only webserver any more: 'prepaid serve webserver' serves"
                " everybody who signs in, and only the team engineering starts, stops or changes"
                " anything there. Remove the unit prepaid-read-only (docs/operate.md)."
            )
        return super().convert(value, param, ctx)


@click.command("serve")
@click.argument("part", type=_Part(_PARTS), metavar="|".join(_PARTS))
def serve_command(part: str) -> None:
    """Run one process of the installation, for systemd or the like to supervise.

    'prepaid up' runs all of them and the embedded database. The sign-off desk alone is
    'prepaid desk'.
    """
    from prepaid_pipeline.operations.service import serve

    settings = load()
    logs.configure(settings)
    serve.run(settings, part)
