"""The one-time link of whoever starts the pipeline while nobody has a password."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from prepaid_pipeline.database import connections
from prepaid_pipeline.desk.login import own_login
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.operations.dagster_ui import links
from prepaid_pipeline.operations.dagster_ui.app import build
from prepaid_pipeline.people import accounts
from prepaid_pipeline.settings.desk import load as load_desk
from prepaid_pipeline.settings.load import Settings
from tests.desk.conftest import form_token
from tests.operations.dagster_ui.conftest import HOME, OWN_PAGE
from tests.operations.service.conftest import Command, prepaid
from tests.world import World

__all__ = ["prepaid"]
DESK = load_desk({})
TAKE_OVER = "UPDATE prepaid.desk_accounts SET password_hash = '$argon2id$x' WHERE person = :n"


async def dagster(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """In Dagster's place: says who asks and what they may."""
    visitor = scope["prepaid.visitor"]
    body = f"{visitor.name} {visitor.may_write}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def login(world: World, settings: Settings) -> Iterator[Engine]:
    login = connections.engine_for(own_login(settings, DESK))
    yield login
    login.dispose()


@pytest.fixture
def new_browser(login: Engine, settings: Settings) -> Callable[[], TestClient]:
    app = build(login, settings, DESK, dagster)
    return lambda: TestClient(app, base_url=HOME)


def make(engine: Engine, settings: Settings) -> str:
    link = links.make(engine, settings, DESK)
    assert link is not None
    assert link.startswith(f"{HOME}/sign-in/")
    return link


def asks(browser: TestClient) -> tuple[int, str]:
    answer = browser.post("/graphql", json={}, headers=OWN_PAGE)
    return answer.status_code, answer.text


def test_it_opens_one_session_that_may_change_things(
    engine: Engine, settings: Settings, new_browser: Callable[[], TestClient], world: World
) -> None:
    link = make(engine, settings)
    browser = new_browser()
    led = browser.get(link, follow_redirects=False)
    assert (led.status_code, led.headers["location"]) == (303, "/")
    status, who = asks(browser)
    assert status == 200
    assert who.startswith("operator ")
    assert who.endswith(" True")
    entry = "SELECT entity, detail FROM prepaid.audit_log WHERE event = 'signed_in'"
    assert world.rows(entry) == [("person", who.removesuffix(" True"))]

    second = new_browser()
    again = second.get(link)
    assert again.status_code == 403
    assert "This link was used" in again.text
    assert asks(second)[0] == 401
    # The database keeps neither the link nor the token.
    kept = str(world.rows("SELECT * FROM prepaid.operator_sessions"))
    assert link.rsplit("/", 1)[1] not in kept
    assert str(browser.cookies["desk"]) not in kept


def test_it_ends_by_signing_out_and_when_nobody_goes_anywhere(
    engine: Engine, settings: Settings, new_browser: Callable[[], TestClient], world: World
) -> None:
    for idle in (False, True):
        browser = new_browser()
        browser.get(make(engine, settings))
        assert asks(browser)[0] == 200
        if idle:
            world.sql(
                "UPDATE prepaid.operator_sessions SET last_seen_at = now() - interval '31 minutes'"
            )
            # Asking is no sign of life, and going somewhere is none after the end.
            assert asks(browser)[0] == 401
            led = browser.get("/", headers={"sec-fetch-mode": "navigate"}, follow_redirects=False)
            assert led.headers["location"] == "/sign-in"
        else:
            page = browser.get("/account")
            out = browser.post("/sign-out", data={"desk_token": form_token(page)})
            assert "You are signed out." in out.text
        assert asks(browser)[0] == 401


def test_where_somebody_has_a_password_there_is_none(
    engine: Engine, settings: Settings, new_browser: Callable[[], TestClient], world: World
) -> None:
    link, old = make(engine, settings), make(engine, settings)
    world.sql(
        "UPDATE prepaid.operator_sessions SET expires_at = now() WHERE link_hash ="
        " (SELECT min(link_hash) FROM prepaid.operator_sessions)"
    )
    browser = new_browser()
    answers = sorted(browser.get(one).status_code for one in (link, old))
    assert answers == [200, 403], "one of the two was too old"
    link = make(engine, settings)
    accounts.add(engine, "test_ann", "finance")
    world.sql("SELECT prepaid.set_disabled('test_ann', false)")
    world.sql(TAKE_OVER, n="test_ann")
    assert links.make(engine, settings, DESK) is None
    assert new_browser().get(link).status_code == 403


@pytest.mark.parametrize("guess", ["x", "a" * 400, "%00", "..%2F..", "'; DROP TABLE x; --"])
def test_what_is_no_link(new_browser: Callable[[], TestClient], guess: str) -> None:
    assert new_browser().get(f"/sign-in/{guess}").status_code in (401, 403, 404)


def test_not_for_others_and_not_beside_a_provider(engine: Engine, settings: Settings) -> None:
    public = settings.model_copy(update={"ui_url": "https://dagster.example.com"})
    assert links.make(engine, public, DESK) is None
    provided = DESK.model_copy(update={"oidc_issuer": "https://login.example.com"})
    assert links.make(engine, settings, provided) is None


def test_an_operator_is_nobody_at_the_desk(
    engine: Engine, login: Engine, settings: Settings, new_browser: Callable[[], TestClient]
) -> None:
    from prepaid_pipeline.desk import app as desk_app

    browser = new_browser()
    browser.get(make(engine, settings))
    desk = desk_app.build(login, settings, DESK)
    at_desk = TestClient(desk, base_url="http://127.0.0.1:3001", cookies=dict(browser.cookies))
    assert at_desk.get("/", follow_redirects=False).headers["location"] == "/sign-in"


def test_the_command(prepaid: Command, engine: Engine, world: World) -> None:
    code, out, _ = prepaid("sign-in-link")
    assert code == 0
    assert out.startswith(f"{HOME}/sign-in/")
    accounts.add(engine, "test_ann", "finance")
    world.sql("SELECT prepaid.set_disabled('test_ann', false)")
    world.sql(TAKE_OVER, n="test_ann")
    code, out, errors = prepaid("sign-in-link")
    assert (code, out) == (1, "")
    assert "'prepaid user add NAME --team engineering'" in errors


def test_a_new_link_needs_the_owner(login: Engine, settings: Settings) -> None:
    with pytest.raises(NotAllowed, match="permission denied"):
        links.make(login, settings, DESK)
