"""Under another address: TLS at a proxy, and a path in front."""

import pytest
from starlette.testclient import TestClient

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.load import load
from tests.desk.conftest import form_token
from tests.operations.dagster_ui.conftest import JSON, OWN_PAGE, House, Visitor

ABOVE = "https://example.com/dagster"


def test_behind_a_proxy_that_terminates_tls(house: House) -> None:
    app = house.app(ui_url="https://dagster.example.com")
    client = TestClient(app, base_url="https://dagster.example.com")
    visitor = Visitor(client)
    answer = visitor.sign_in(house.person("engineering"))
    cookie = answer.headers["set-cookie"]
    assert "__Host-desk=" in cookie
    assert "Secure" in cookie
    assert client.get("/").headers["strict-transport-security"]
    # The proxy speaks plain HTTP to us and may leave the port out of Host.
    for origin, status in (
        ("https://dagster.example.com", 200),
        ("http://dagster.example.com", 403),
        ("https://example.com", 403),
        ("https://evil.dagster.example.com", 403),
    ):
        sent = {**JSON, "origin": origin}
        assert visitor.ask("{ version }", sent).status_code == status, origin
    assert client.get("/", headers={"host": "other.example.com"}).status_code == 400
    assert client.get("/health", headers={"host": "127.0.0.1:3000"}).status_code == 200


def test_below_a_path(house: House) -> None:
    app = house.app(ui_url=ABOVE)
    client = TestClient(app, base_url="https://example.com")
    visitor = Visitor(client)
    assert client.get("/dagster/health").text == client.get("/health").text == "ok\n"
    led = visitor.go("/dagster/runs")
    assert led.headers["location"] == "/dagster/sign-in?next=/dagster/runs"
    page = client.get("/dagster/sign-in")
    assert 'action="/dagster/sign-in"' in page.text
    style = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
    assert style.startswith("/dagster/static/desk.css")
    assert client.get(style).status_code == 200
    for where in ("", "/", "/elsewhere", "//evil.example", "https://evil.example/dagster/"):
        fields = {"desk_token": form_token(client.get("/dagster/sign-in")), "next": where}
        fields |= {"name": house.person("engineering"), "password": "correct horse battery"}
        led = client.post("/dagster/sign-in", data=fields, follow_redirects=False)
        assert led.headers["location"] == "/dagster/", where
        client.post(
            "/dagster/sign-out", data={"desk_token": form_token(client.get("/dagster/account"))}
        )
    visitor.sign_in(house.person("engineering"), home="/dagster")
    ui = client.get("/dagster/")
    assert '"/dagster"' in ui.text
    sent = {**JSON, "origin": "https://example.com"}
    asked = {"query": "mutation { reloadWorkspace { __typename } }"}
    assert client.post("/dagster/graphql", json={"query": "{ version }"}, headers=sent).json() == {
        "data": {"version": ""}
    }
    assert client.get("/dagster/graphql", params=asked).status_code == 405
    with client.websocket_connect(
        "wss://example.com/dagster/graphql",
        subprotocols=["graphql-ws"],
        headers={"origin": "https://example.com"},
    ) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}


def test_a_reader_below_a_path_changes_nothing(house: House) -> None:
    client = TestClient(house.app(ui_url=ABOVE), base_url="https://example.com")
    visitor = Visitor(client)
    visitor.sign_in(house.person("finance"), home="/dagster")
    sent = {**OWN_PAGE, "origin": "https://example.com"}
    for path in ("/dagster/report_asset_materialization/figures", "/graphql"):
        assert client.post(path, json={}, headers=sent).status_code == 403
    mutation = {"query": "mutation { reloadWorkspace { __typename } }"}
    assert client.post("/dagster/graphql", json=mutation, headers=sent).status_code == 403


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Dagster.example.com/", "https://dagster.example.com"),
        ("https://example.com/a/b-c/", "https://example.com/a/b-c"),
        ("http://localhost:3100", "http://localhost:3100"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_addresses(given: str, kept: str) -> None:
    assert load({"PREPAID_UI_URL": given}).ui_url == kept


@pytest.mark.parametrize(
    "given",
    [
        "dagster.example.com",
        "http://dagster.example.com",
        "http://10.0.0.5:3000",
        "ftp://localhost",
        "https://user:secret@example.com",
        "https://example.com/?x=1",
        "https://example.com/a//b",
        "https://example.com/a b",
        "https://example.com:x",
        "https://",
    ],
)
def test_addresses_that_cannot_be(given: str) -> None:
    with pytest.raises(SettingError, match=r"^PREPAID_UI_URL="):
        load({"PREPAID_UI_URL": given})


def test_a_token_that_is_too_short_is_not_shown() -> None:
    with pytest.raises(SettingError) as refused:
        load({"PREPAID_UI_TOKEN": "secret"})
    assert str(refused.value) == "PREPAID_UI_TOKEN has 6 characters: expected 32 or more"


def test_the_read_only_port_is_gone() -> None:
    with pytest.raises(
        SettingError, match=r"PREPAID_READ_ONLY_PORT is no longer a setting: the UI"
    ):
        load({"PREPAID_READ_ONLY_PORT": "3002"})
    load({"PREPAID_READ_ONLY_PORT": ""})
