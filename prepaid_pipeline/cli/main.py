"""The entry point ``prepaid``: finds the command's module and turns errors into one clear line."""

import gc
import importlib
import sys
import warnings

import click

from prepaid_pipeline import private
from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.language.english import grouped

# Command -> module under prepaid_pipeline.cli that defines it (as a click command of that name).
# Loaded on use: `prepaid db url` need not wait for Dagster.
COMMANDS = {
    "demo": "demo",
    "up": "service",
    "serve": "serve",
    "desk": "desk",
    "down": "service",
    "sign-in-link": "service",
    "migrate": "service",
    "db": "service",
    "doctor": "service",
    "metrics": "service",
    "import": "data",
    "payments": "payments",
    "due": "process",
    "drain": "process",
    "undo": "process",
    "user": "people",
    "tasks": "people",
    "held": "people",
    "mails": "mails",
    "subscriptions": "subscriptions",
    "customers": "customers",
    "invoices": "invoices",
    "audit": "audit",
    "backup": "backup",
    "story": "inspect",
    "check": "inspect",
    "backfill": "revenue",
    "report": "revenue",
    "drill": "drill",
}

# Earlier names, which scripts may still use; no help lists them.
FORMER_NAMES = {"plans": "subscriptions"}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        cmd_name = FORMER_NAMES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        # Loading makes objects that stay: collecting among them finds nothing and takes a tenth of
        # the time until a command begins.
        gc.disable()
        try:
            module = importlib.import_module(f"prepaid_pipeline.cli.{COMMANDS[cmd_name]}")
        finally:
            gc.enable()
        command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prepaid-pipeline")
def prepaid() -> None:
    """Prepaid service plans, from renewal to monthly revenue report.

    Settings come from the environment (PREPAID_…); docs/settings.md lists them.
    """


def main() -> None:
    """Run the command; exit 0, 1 (failed) or 2 (wrong usage)."""
    private.begin()
    # What Dagster says of its own parameters is nothing that the reader of a command can act on.
    warnings.filterwarnings("ignore", module=r"dagster\b")
    try:
        # In this mode click returns the code of an Exit instead of leaving with it.
        code = prepaid(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(1)
    except PrepaidError as error:
        click.echo(f"prepaid: {grouped(str(error))}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
