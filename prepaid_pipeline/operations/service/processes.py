"""The processes of an installation: what each is started with, by ``prepaid up`` or one by one."""

import os
from collections.abc import Sequence
from pathlib import Path

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.load import Settings

HOST = "127.0.0.1"
# A socket's path may have 108 characters at most.
_LONGEST_PATH = 100


def code_socket(settings: Settings, other: Path | None = None) -> Path:
    """Where the code server listens: in the home, or in ``other`` if that path is too long.

    Raises SettingError if it is and there is no other.
    """
    own = settings.dagster_home / "code.sock"
    if len(str(own)) <= _LONGEST_PATH:
        return own
    if other is None:
        raise SettingError(
            f"PREPAID_HOME={str(settings.home)!r}: expected a path of at most"
            f" {_LONGEST_PATH - len('/dagster/code.sock')} characters: a socket is in it"
        )
    return other / "code.sock"


def write_workspace(settings: Settings, socket: Path) -> Path:
    """Tell the daemon and the webserver where the code server is; the file that says so."""
    workspace = settings.dagster_home / "workspace.yaml"
    half = workspace.with_name(f".workspace.{os.getpid()}.tmp")
    half.write_text(
        "load_from:\n  - grpc_server:\n"
        f"      socket: {socket}\n      location_name: prepaid_pipeline\n",
        encoding="utf-8",
    )
    return half.replace(workspace)


def code_server(socket: Path) -> Sequence[str]:
    """After ``python -m``: definitions, sensors and runs."""
    return ["prepaid_pipeline.operations.service.code_server", str(socket)]


def daemon(workspace: Path) -> Sequence[str]:
    """After ``python -m``: schedules, sensors' ticks, the queue of runs."""
    return ["prepaid_pipeline.operations.service.daemon", str(workspace)]


def webserver(workspace: Path) -> Sequence[str]:
    """After ``python -m``: Dagster's UI, with its sign-in."""
    return ["prepaid_pipeline.operations.dagster_ui.serve", str(workspace)]
