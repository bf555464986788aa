"""Signing in at a provider: a real conversation with a small one, and what can be wrong in it."""

import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc.jwk import RSAKey
from sqlalchemy import Engine
from starlette.testclient import TestClient

from prepaid_pipeline.desk.app import build
from prepaid_pipeline.people import accounts
from prepaid_pipeline.settings.desk import load
from prepaid_pipeline.settings.load import Settings
from tests.desk.chromium import served
from tests.desk.provider import CLIENT_ID, CLIENT_SECRET, Provider
from tests.mail.conftest import free_port
from tests.world import World

DESK = "http://127.0.0.1:3001"
NewPerson = Callable[..., str]


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    port = free_port()
    provider = Provider(f"http://127.0.0.1:{port}")
    with served(provider.app, port):
        yield provider


@pytest.fixture
def provider(running: Provider) -> Provider:
    running.claims, running.faults, running.signs_with = {}, {}, None
    running.asked.clear()
    running.refused.clear()
    return running


@pytest.fixture
def visitor(
    desk_engine: Engine, settings: Settings, provider: Provider
) -> Callable[..., TestClient]:
    def visitor(claim: str = "preferred_username", issuer: str = provider.issuer) -> TestClient:
        desk = load(
            {
                "PREPAID_OIDC_ISSUER": issuer,
                "PREPAID_OIDC_CLIENT_ID": CLIENT_ID,
                "PREPAID_OIDC_CLIENT_SECRET": CLIENT_SECRET,
                "PREPAID_OIDC_CLAIM": claim,
            }
        )
        return TestClient(build(desk_engine, settings, desk), base_url=DESK)

    return visitor


def sign_in(visitor: TestClient, path: str = "/oidc/start", state: str | None = None) -> str:
    """To the provider and back, as a browser goes; the text of the page at the end."""
    start = visitor.get(path, follow_redirects=False)
    assert start.status_code == 302
    back = httpx2.get(start.headers["location"], follow_redirects=False).headers["location"]
    assert back.startswith(f"{DESK}/oidc/callback?")
    code = parse_qs(urlsplit(back).query)
    query = {"code": code["code"][0], "state": state or code["state"][0]}
    answer = visitor.get("/oidc/callback", params=query)
    return answer.text


def is_in(visitor: TestClient) -> bool:
    return visitor.get("/account").url.path == "/account"


def test_signed_in_and_on_to_the_page_that_was_asked_for(
    world: World, provider: Provider, visitor: Callable[..., TestClient], new_person: NewPerson
) -> None:
    name = new_person("finance")
    provider.claims = {"preferred_username": name}
    browser = visitor()
    assert 'href="/oidc/start?next=/payments"' in browser.get("/payments").text
    page = sign_in(browser, "/oidc/start?next=/payments")
    assert "<h1>Payments to verify</h1>" in page
    assert f"<b>{name}</b>" in page
    (asked,) = provider.asked
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{DESK}/oidc/callback"
    assert {"openid", "profile", "email"} == set(asked["scope"].split())
    assert provider.refused == []
    assert world.sql("SELECT count(*) FROM prepaid.desk_sessions WHERE revoked_at IS NULL") == 1
    # A person without a password signs in in the same way.
    other = "finance_without_password"
    accounts.add(world.engine, other, "finance")
    provider.claims = {"preferred_username": other}
    assert f"<b>{other}</b>" in sign_in(visitor())


def test_by_an_address_that_the_provider_has_verified(
    world: World, provider: Provider, visitor: Callable[..., TestClient], new_person: NewPerson
) -> None:
    name = new_person("finance")
    accounts.add(world.engine, name, "finance", "ann@example.com")
    provider.claims = {"email": "Ann@example.com", "email_verified": True}
    assert f"<b>{name}</b>" in sign_in(visitor("email"))
    for claims in (
        {"email": "ann@example.com"},
        {"email": "ann@example.com", "email_verified": "true"},
        {"email": "else@example.com", "email_verified": True},
    ):
        provider.claims = claims
        browser = visitor("email")
        assert "no account for you here" in sign_in(browser)
        assert not is_in(browser)
    # An address of two people is nobody's.
    accounts.add(world.engine, new_person("finance"), "finance", "ann@example.com")
    provider.claims = {"email": "ann@example.com", "email_verified": True}
    assert "no account for you here" in sign_in(visitor("email"))


FAULTS = {
    "another nonce": {"nonce": "of another sign-in"},
    "another audience": {"aud": "another-client"},
    "another issuer": {"iss": "https://evil.example.com"},
    "expired": {"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200},
}


@pytest.mark.parametrize("fault", [*FAULTS, "another key", "another state"])
def test_a_sign_in_that_is_not_right_is_refused(
    provider: Provider, visitor: Callable[..., TestClient], new_person: NewPerson, fault: str
) -> None:
    provider.claims = {"preferred_username": new_person("finance")}
    provider.faults = FAULTS.get(fault, {})
    if fault == "another key":
        provider.signs_with = RSAKey.generate_key(2048, {"kid": "k1"})
    browser = visitor()
    page = sign_in(browser, state="guessed" if fault == "another state" else None)
    assert "The sign-in did not work" in page
    assert not is_in(browser)


def test_whom_the_desk_does_not_know(
    world: World, provider: Provider, visitor: Callable[..., TestClient], new_person: NewPerson
) -> None:
    disabled = new_person("finance")
    accounts.set_disabled(world.engine, disabled, True)
    for claims in (
        {"preferred_username": disabled},
        {"preferred_username": "nobody"},
        {},
        {"preferred_username": ["a"]},
        {"preferred_username": "finance"},
    ):
        provider.claims = claims
        browser = visitor()
        assert "no account for you here" in sign_in(browser), claims
        assert not is_in(browser)


def test_a_code_of_another_browser(
    provider: Provider, visitor: Callable[..., TestClient], new_person: NewPerson
) -> None:
    """Somebody is led to a callback with a code that is not theirs: they stay who they are."""
    provider.claims = {"preferred_username": new_person("finance")}
    start = visitor().get("/oidc/start", follow_redirects=False)
    back = httpx2.get(start.headers["location"], follow_redirects=False).headers["location"]
    victim = visitor()
    assert "The sign-in did not work" in victim.get(back.removeprefix(DESK)).text
    assert not is_in(victim)


def test_a_provider_that_does_not_answer(visitor: Callable[..., TestClient]) -> None:
    browser = visitor(issuer=f"http://127.0.0.1:{free_port()}")
    answer = browser.get("/oidc/start")
    assert answer.status_code == 502
    assert "does not answer" in answer.text


def test_without_a_provider_there_is_no_such_page(desk_engine: Engine, settings: Settings) -> None:
    browser = TestClient(build(desk_engine, settings, load({})), base_url=DESK)
    assert browser.get("/oidc/start").status_code == 404
    assert "organisation" not in browser.get("/sign-in").text
