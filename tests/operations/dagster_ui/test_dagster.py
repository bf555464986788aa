"""What the guard leans on in Dagster, which Dagster does not promise: it says so when it moves.

If one of these fails after an upgrade of Dagster, read what is new with the eyes of somebody who
wants to get in, and only then write it down here.
"""

import inspect

import dagster
import dagster_webserver
from dagster._core.storage.runs.base import RunStorage
from dagster._core.workspace import permissions
from dagster._core.workspace.context import (
    BaseWorkspaceRequestContext,
    WorkspaceProcessContext,
    WorkspaceRequestContext,
)
from dagster_webserver.graphql import GraphQLServer
from dagster_webserver.webserver import DagsterWebserver
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from prepaid_pipeline.operations.dagster_ui.workspace import Webserver
from tests.operations.dagster_ui.conftest import House

ROUTES = {
    "GET POST /graphql",
    "websocket /graphql",
    "GET /server_info",
    "GET /dagit_info",
    "GET /logs/{path:path}",
    "GET /notebook",
    "GET /dagit/notebook",
    "GET /download_debug/{run_id:str}",
    "POST /report_asset_materialization/{asset_key:path}",
    "POST /report_asset_check/{asset_key:path}",
    "POST /report_asset_observation/{asset_key:path}",
    "GET /{path:path}",
    "GET /",
}


def described(route: BaseRoute) -> str:
    if isinstance(route, WebSocketRoute):
        return f"websocket {route.path}"
    assert isinstance(route, Route)
    return f"{' '.join(sorted((route.methods or set()) - {'HEAD'}))} {route.path}"


def test_its_addresses(house: House) -> None:
    """Files of its pages apart: what reads is GET, what changes something is POST."""
    server: Webserver = Webserver(house.workspace)
    static = {getattr(route, "path", "") for route in server.build_static_routes()}
    routes = [r for r in server.build_routes() if getattr(r, "path", "") not in static]
    assert not [r for r in routes if isinstance(r, Mount)]
    assert {described(route) for route in routes} == ROUTES


def test_whom_it_asks_for_permissions() -> None:
    assert not any(permissions.VIEWER_PERMISSIONS.values())
    assert set(permissions.VIEWER_PERMISSIONS) == set(permissions.Permissions)
    for cls, method, names in (
        (DagsterWebserver, "_make_request_context", ["self", "conn"]),
        (WorkspaceProcessContext, "create_request_context", ["self", "source"]),
        (
            WorkspaceRequestContext,
            "__init__",
            [
                "self",
                "instance",
                "current_workspace",
                "process_context",
                "version",
                "source",
                "read_only",
                "read_only_locations",
            ],
        ),
        (BaseWorkspaceRequestContext, "get_viewer_tags", ["self"]),
        (BaseWorkspaceRequestContext, "get_reporting_user_tags", ["self"]),
        (
            GraphQLServer,
            "execute_graphql_request",
            ["self", "request", "query", "variables", "operation_name"],
        ),
        (RunStorage, "add_run", ["self", "dagster_run"]),
        (RunStorage, "add_historical_run", ["self", "dagster_run", "run_creation_time"]),
        (RunStorage, "add_backfill", ["self", "partition_backfill"]),
    ):
        assert list(inspect.signature(getattr(cls, method)).parameters) == names, method


def test_each_query_has_a_context_of_its_own() -> None:
    """Which is entered in the thread in which the query is carried out."""
    source = inspect.getsource(GraphQLServer.graphql_execution_thread)
    assert "with self.request_context(request) as request_context" in source
    for part in ("graphql_http_endpoint", "execute_graphql_request", "graphql_ws_endpoint"):
        assert hasattr(GraphQLServer, part)


def test_the_versions_that_were_read() -> None:
    """The patch may move, and the tests above with it; a new minor version is read again."""
    for version in (dagster.__version__, dagster_webserver.__version__):
        assert version.startswith("1.13.")
