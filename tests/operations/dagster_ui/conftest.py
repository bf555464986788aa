"""Dagster's UI as we serve it: the real application, on the desk's own login, around real Dagster.

A module shares one, with its database: its people and runs are its own.
"""

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
from dagster._core.remote_origin import CodeLocationOrigin, InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import WorkspaceLoadTarget
from httpx2 import Response
from sqlalchemy import URL, Engine
from starlette.applications import Starlette
from starlette.testclient import TestClient

from prepaid_pipeline.database import connections
from prepaid_pipeline.desk.login import own_login
from prepaid_pipeline.operations.dagster_ui.app import build
from prepaid_pipeline.operations.dagster_ui.workspace import Webserver, Workspace
from prepaid_pipeline.operations.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.people import accounts
from prepaid_pipeline.settings.desk import DeskSettings
from prepaid_pipeline.settings.desk import load as load_desk
from prepaid_pipeline.settings.load import Settings, load
from tests.conftest import fresh_database
from tests.desk.conftest import PASSWORD, form_token, password_hash
from tests.world import World

__all__ = ["password_hash"]
HOME = "http://127.0.0.1:3000"
TOKEN = "a token that no other test or person has"
JSON = {"content-type": "application/json"}
OWN_PAGE = {**JSON, "origin": HOME, "sec-fetch-site": "same-origin"}


class InThisProcess(WorkspaceLoadTarget):
    """The code location of definitions.py, without a process of its own."""

    def create_origins(self) -> list[CodeLocationOrigin]:
        target = LoadableTargetOrigin(
            executable_path=sys.executable, module_name="tests.operations.dagster_ui.definitions"
        )
        return [InProcessCodeLocationOrigin(target, location_name="small")]


@dataclass
class House:
    """An installation whose Dagster UI can be built with other settings."""

    world: World
    owner: Engine
    login: Engine
    settings: Settings
    desk: DeskSettings
    instance: dg.DagsterInstance
    workspace: Workspace
    hash: str
    people: dict[str, str] = field(default_factory=dict)
    servers: dict[str, Starlette] = field(default_factory=dict)

    def app(self, **settings: str | None) -> Starlette:
        """The application with other settings: ``ui_url=…`` is PREPAID_UI_URL=….

        Dagster's part is made once per path: its schema takes half a second.
        """
        changed = self.settings.model_copy(update=settings)
        prefix = urlsplit(changed.ui_url).path
        if prefix not in self.servers:
            self.servers[prefix] = Webserver(self.workspace, prefix).create_asgi_app()
        return build(self.login, changed, self.desk, self.servers[prefix])

    def person(self, team: str) -> str:
        """A person of the team, the same for the whole module."""
        if team not in self.people:
            name = f"{team}_{uuid.uuid4().hex[:8]}"
            accounts.add(self.owner, name, team)
            self.world.sql("SELECT prepaid.set_password(:n, :h)", n=name, h=self.hash)
            self.people[team] = name
        return self.people[team]

    def visitor(self, team: str | None = None, app: Starlette | None = None) -> "Visitor":
        visitor = Visitor(TestClient(app or self.app(), base_url=HOME))
        if team is not None:
            visitor.sign_in(self.person(team))
        return visitor


@dataclass
class Visitor:
    """Somebody's browser, as far as headers and cookies go."""

    client: TestClient

    def sign_in(self, name: str, home: str = "") -> Response:
        page = self.client.get(f"{home}/sign-in")
        asked = {"desk_token": form_token(page), "name": name, "password": PASSWORD, "next": ""}
        answer = self.client.post(f"{home}/sign-in", data=asked, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        return answer

    def ask(self, query: str, headers: dict[str, str] | None = None, **variables: Any) -> Response:
        """Send a query as Dagster's own pages do."""
        return self.client.post(
            "/graphql",
            json={"query": query, "variables": variables},
            headers=OWN_PAGE if headers is None else headers,
        )

    def go(self, path: str, **headers: str) -> Response:
        """Go to a page by hand: a navigation, without following where it leads."""
        sent = {"sec-fetch-mode": "navigate", "accept": "text/html", **headers}
        return self.client.get(path, headers=sent, follow_redirects=False)


@pytest.fixture(scope="module")
def house(
    cluster: URL, tmp_path_factory: pytest.TempPathFactory, password_hash: str
) -> Iterator[House]:
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database(cluster))
        settings = load(
            {
                "PREPAID_HOME": str(tmp_path_factory.mktemp("home")),
                "PREPAID_DATABASE_URL": url.render_as_string(hide_password=False),
                "PREPAID_UI_TOKEN": TOKEN,
            }
        )
        owner = connections.engine_for(url)
        stack.callback(owner.dispose)
        desk = load_desk({})
        login = connections.engine_for(own_login(settings, desk))
        stack.callback(login.dispose)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in prepare_dagster_home(settings).items():
            patch.setenv(name, value)
        patch.syspath_prepend(str(Path(__file__).parents[3]))
        instance = stack.enter_context(dg.DagsterInstance.get())
        workspace = stack.enter_context(Workspace(instance, InThisProcess()))
        assert os.environ["DAGSTER_HOME"].startswith(str(settings.home))
        yield House(World(owner), owner, login, settings, desk, instance, workspace, password_hash)
