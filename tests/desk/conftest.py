"""The desk as its people see it: the real application on its own login, through its own forms."""

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from argon2 import PasswordHasher
from httpx2 import Response
from sqlalchemy import URL, Engine
from starlette.testclient import TestClient

from prepaid_pipeline.database import connections
from prepaid_pipeline.desk.app import build
from prepaid_pipeline.desk.login import own_login
from prepaid_pipeline.people import accounts
from prepaid_pipeline.settings.desk import DeskSettings, load
from prepaid_pipeline.settings.load import Settings
from tests.world import TODAY, World

PASSWORD = "correct horse battery"
SAME_SITE = {"sec-fetch-site": "same-origin"}
_TOKEN = re.compile(r'name="desk_token" value="([^"]+)"')


@dataclass
class Browser:
    """One person's browser: keeps cookies, sends forms with the token of the page they are on."""

    client: TestClient
    name: str = ""
    last: Response | None = None
    headers: dict[str, str] = field(default_factory=lambda: dict(SAME_SITE))

    def get(self, path: str, **query: str) -> Response:
        self.last = self.client.get(path, params=query or None)
        return self.last

    def post(self, path: str, token: str | None = None, **fields: object) -> Response:
        """Send a form from the page that was opened last, and follow to the page that answers."""
        if token is None:
            assert self.last is not None
            token = form_token(self.last)
        self.last = self.client.post(
            path, data={"desk_token": token, **fields}, headers=self.headers
        )
        return self.last

    def sign_in(self, name: str, password: str = PASSWORD) -> Response:
        self.get("/sign-in")
        self.name = name
        return self.post("/sign-in", name=name, password=password, next="/")


def form_token(page: Response) -> str:
    found = _TOKEN.search(page.text)
    assert found is not None, page.text
    return found.group(1)


@pytest.fixture(scope="session")
def password_hash() -> str:
    """Cheap to check: how dear a check is stands in the hash itself."""
    return PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)


@pytest.fixture(autouse=True)
def _business_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "today", lambda _: TODAY)


@pytest.fixture
def desk_settings() -> DeskSettings:
    return load({"PREPAID_DESK_URL": "http://127.0.0.1:3001"})


@pytest.fixture
def desk_url(world: World, settings: Settings, desk_settings: DeskSettings) -> URL:
    """The database as the desk's own login."""
    return own_login(settings, desk_settings)


@pytest.fixture
def desk_engine(desk_url: URL) -> Iterator[Engine]:
    engine = connections.engine_for(desk_url)
    yield engine
    engine.dispose()


@pytest.fixture
def new_person(world: World, password_hash: str) -> Callable[..., str]:
    """A person of a team who can sign in; names are the test's own, roles belong to the server."""

    def new_person(team: str, name: str | None = None) -> str:
        name = name or f"{team}_{uuid.uuid4().hex[:8]}"
        accounts.add(world.engine, name, team)
        world.sql("SELECT prepaid.set_password(:name, :hash)", name=name, hash=password_hash)
        return name

    return new_person


@pytest.fixture
def make_browsers(
    desk_engine: Engine,
    settings: Settings,
    desk_settings: DeskSettings,
    new_person: Callable[..., str],
) -> Callable[[], Callable[..., Browser]]:
    """Builds the desk when it is called; then as ``browser``."""

    def make_browsers() -> Callable[..., Browser]:
        app = build(desk_engine, settings, desk_settings)

        def browser(team: str | None = None, name: str | None = None) -> Browser:
            opened = Browser(TestClient(app, base_url="http://127.0.0.1:3001"))
            if team is not None or name is not None:
                person = name or new_person(team)
                answer = opened.sign_in(person)
                assert answer.status_code == 200, answer.text
                assert person in answer.text
            return opened

        return browser

    return make_browsers


@pytest.fixture
def browser(make_browsers: Callable[[], Callable[..., Browser]]) -> Callable[..., Browser]:
    """A browser; with a team, one in which a new person of it has signed in."""
    return make_browsers()
