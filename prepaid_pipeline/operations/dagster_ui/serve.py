"""The process of Dagster's UI: ``prepaid up`` and its systemd unit start it (``python -m`` this
module, with its WORKSPACE) in the environment that ``dagster_instance`` makes.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver import cli, version
from starlette.applications import Starlette

from prepaid_pipeline import logs
from prepaid_pipeline.database import connections
from prepaid_pipeline.desk.login import own_login
from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.operations.dagster_ui.app import build
from prepaid_pipeline.operations.dagster_ui.workspace import Webserver, Workspace
from prepaid_pipeline.operations.service.processes import HOST
from prepaid_pipeline.settings.desk import DeskSettings
from prepaid_pipeline.settings.desk import load as load_desk
from prepaid_pipeline.settings.load import Settings, load

_POLL_MILLISECONDS = 2000


def main() -> int:
    """Serve until SIGINT or SIGTERM. Exit code 1 for what cannot be served, which is said."""
    try:
        settings, desk = load(), load_desk()
        configure_loggers(formatter=logs.configure_service(settings), log_level="INFO")
        with DagsterInstance.get() as instance:
            _serve(settings, desk, instance, sys.argv[1])
    except PrepaidError as error:
        print(f"prepaid: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _serve(
    settings: Settings, desk: DeskSettings, instance: DagsterInstance, workspace_file: str
) -> None:
    engine = connections.engine_for(own_login(settings, desk))
    # As dagster-webserver has them: a page must not wait for a statement for ever.
    instance.optimize_for_webserver(
        cli.DEFAULT_DB_STATEMENT_TIMEOUT, cli.DEFAULT_POOL_RECYCLE, cli.DEFAULT_POOL_MAX_OVERFLOW
    )
    target = WorkspaceFileTarget([workspace_file])
    try:
        with Workspace(instance, target, version=version.__version__) as workspace:
            server = Webserver(workspace, urlsplit(settings.ui_url).path, _POLL_MILLISECONDS)
            uvicorn.run(
                build(engine, settings, desk, server.create_asgi_app(), _lifespan),
                host=HOST,
                port=settings.port,
                log_level="warning",
                log_config=None if logging.getLogger().handlers else uvicorn.config.LOGGING_CONFIG,
                # A path can hold the link that signs somebody in.
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
    finally:
        engine.dispose()


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
    try:
        yield
    except asyncio.CancelledError:
        return  # Ctrl-C


if __name__ == "__main__":
    sys.exit(main())
