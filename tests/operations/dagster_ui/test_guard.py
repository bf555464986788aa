"""What gets through to Dagster: from where, by whom, and in which form."""

import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from prepaid_pipeline.operations.dagster_ui import guard
from prepaid_pipeline.people import accounts
from tests.operations.dagster_ui.conftest import HOME, JSON, OWN_PAGE, TOKEN, House
from tests.operations.dagster_ui.test_launching import LAUNCH, quick

ASK = {"query": "{ version }"}
BODY = {"query": LAUNCH, "variables": {"params": quick()}}


@pytest.fixture
def nothing_launched(house: House) -> Iterator[None]:
    before = house.instance.get_runs_count()
    yield
    assert house.instance.get_runs_count() == before


def test_health_needs_no_sign_in_and_everything_else_does(house: House) -> None:
    nobody = house.visitor()
    assert nobody.client.get("/health").text == "ok\n"
    for path in ("/", "/runs/x?tab=y", "/graphql", "/logs/a/b.out", "/download_debug/x"):
        led = nobody.go(path)
        assert led.status_code == 303
        assert led.headers["location"].startswith("/sign-in")
    assert nobody.go("/runs/x?tab=y").headers["location"] == "/sign-in?next=/runs/x%3Ftab%3Dy"
    for path in ("/server_info", "/dagit_info", "/favicon.png", "/logs/a/b.out", "/notebook"):
        assert nobody.client.get(path).status_code == 401, path
    refused = nobody.ask("{ version }")
    assert refused.status_code == 401
    assert "not signed in" in refused.json()["errors"][0]["message"]


@pytest.mark.usefixtures("nothing_launched")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        # Another site, the same site on another port, no word of where from.
        ({**JSON, "origin": "http://evil.example", "sec-fetch-site": "cross-site"}, 403),
        ({**JSON, "origin": "http://127.0.0.1:9999", "sec-fetch-site": "same-site"}, 403),
        ({**JSON, "origin": "http://127.0.0.1:9999"}, 403),
        ({**JSON, "origin": "https://127.0.0.1:3000"}, 403),
        ({**JSON, "origin": "null"}, 403),
        ({**JSON, "origin": "http://127.0.0.1:3000.evil.example"}, 403),
        ({**JSON, "origin": HOME, "sec-fetch-site": "same-site"}, 403),
        ({**JSON, "sec-fetch-site": "none"}, 403),
        (JSON, 403),
        # What a page may send without being asked first.
        ({**OWN_PAGE, "content-type": "text/plain"}, 415),
        ({**OWN_PAGE, "content-type": "text/plain; application/json"}, 415),
        ({**OWN_PAGE, "content-type": "application/x-www-form-urlencoded"}, 415),
        ({**OWN_PAGE, "content-type": "multipart/form-data; boundary=application/json"}, 415),
        ({**OWN_PAGE, "content-type": "application/graphql"}, 415),
        ({**OWN_PAGE, "content-type": "application/jsonp"}, 415),
        ({**OWN_PAGE, "content-type": ""}, 415),
    ],
)
def test_what_changes_something_is_json_from_our_own_page(
    house: House, headers: dict[str, str], status: int
) -> None:
    engineer = house.visitor("engineering")
    answer = engineer.client.post("/graphql", json=BODY, headers=headers)
    assert answer.status_code == status, answer.text
    posted = engineer.client.post("/report_asset_materialization/figures", json={}, headers=headers)
    assert posted.status_code == status


@pytest.mark.usefixtures("nothing_launched")
def test_nothing_is_asked_by_get(house: House) -> None:
    engineer = house.visitor("engineering")
    asked = {"query": "mutation { reloadWorkspace { __typename } }"}
    for accept in ("*/*", "application/json", "image/avif,image/webp", ""):
        answer = engineer.client.get("/graphql", params=asked, headers={"accept": accept})
        assert answer.status_code == 405, accept
    # Who goes there gets the page in which queries are written, and it does not send the query.
    page = engineer.client.get("/graphql", params=asked, headers={"accept": "text/html"})
    assert page.text.lstrip().startswith("<!--")
    assert "reloadWorkspace" not in page.text
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
        assert engineer.client.request(method, "/graphql", headers=OWN_PAGE).status_code == 415


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", ""])
def test_another_name_for_this_machine_is_not_answered(house: House, name: str) -> None:
    """DNS rebinding: the page is of the same origin as what it asks, by another site's name."""
    engineer = house.visitor("engineering")
    for path in ("/", "/graphql", "/health", "/sign-in"):
        assert engineer.client.get(path, headers={"host": name}).status_code == 400
    sent = {**JSON, "host": name, "origin": f"http://{name}", "sec-fetch-site": "same-origin"}
    assert engineer.client.post("/graphql", json=ASK, headers=sent).status_code == 400


def test_through_a_tunnel_on_another_port(house: House) -> None:
    engineer = house.visitor("engineering")
    sent = {**JSON, "host": "localhost:3100", "origin": "http://localhost:3100"}
    assert engineer.client.post("/graphql", json=ASK, headers=sent).status_code == 200


def test_pages_and_data_are_not_for_other_sites(house: House) -> None:
    engineer = house.visitor("engineering")
    assert engineer.go("/", **{"sec-fetch-site": "cross-site"}).status_code == 200
    framed = {"sec-fetch-site": "same-site", "sec-fetch-dest": "iframe"}
    assert engineer.go("/", **framed).status_code == 403
    for site in ("cross-site", "same-site"):
        asked = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
        assert engineer.client.get("/server_info", headers=asked).status_code == 403
    elsewhere = {"origin": "http://evil.example"}
    assert engineer.client.get("/server_info", headers=elsewhere).status_code == 403
    page = engineer.go("/")
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    # Dagster's own policy, and not the desk's, under which it would not work.
    assert "strict-dynamic" in page.headers["content-security-policy"]
    info = engineer.client.get("/server_info")
    assert info.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert info.headers["cache-control"] == "private, no-cache"
    sign_in = house.visitor().client.get("/sign-in")
    assert "default-src 'none'" in sign_in.headers["content-security-policy"]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer  {TOKEN}"},
        {"dagster-cloud-api-token": TOKEN},
    ],
)
def test_a_program_has_the_token(house: House, headers: dict[str, str]) -> None:
    program = house.visitor()
    assert program.ask("{ version }", {**JSON, **headers}).json() == {"data": {"version": ""}}
    assert program.client.get("/server_info", headers=headers).status_code == 200
    # Also a program says that it sends JSON.
    plain = {**headers, "content-type": "text/plain"}
    assert program.client.post("/graphql", json=ASK, headers=plain).status_code == 415
    # A browser that was given the token by its address sends it for every page that asks.
    lured = {**JSON, **headers, "origin": "http://evil.example"}
    assert program.ask("{ version }", lured).status_code == 403


def test_the_token_in_an_address(house: House) -> None:
    """As ``dagster-graphql -r http://any:TOKEN@127.0.0.1:3000`` sends it."""
    program = house.visitor().client
    assert program.get("/server_info", auth=("any", TOKEN)).status_code == 200
    assert program.post("/graphql", json=ASK, auth=("any", TOKEN)).status_code == 200
    assert program.post("/graphql", json=ASK, auth=(TOKEN, "")).status_code == 401


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer x", f"Bearer {TOKEN}x", f"Token {TOKEN}", "Basic !", "Basic /w==", ""],
)
def test_a_wrong_token_is_nobodys_whatever_cookie_is_with_it(house: House, header: str) -> None:
    engineer = house.visitor("engineering")
    answer = engineer.ask("{ version }", {**OWN_PAGE, "authorization": header})
    assert answer.status_code == 401
    without = house.visitor(app=house.app(ui_token=None))
    assert without.ask("{ version }", {**JSON, "authorization": "Bearer "}).status_code == 401


def seen(house: House) -> object:
    name = house.person("leadership")
    return house.world.sql(
        "SELECT max(last_seen_at) FROM prepaid.desk_sessions WHERE person = :n", n=name
    )


def test_only_going_to_a_page_keeps_a_session_awake(house: House) -> None:
    reader = house.visitor("leadership")
    opened = seen(house)
    for _ in range(3):
        assert reader.ask("{ version }").status_code == 200
        polled = {"sec-fetch-mode": "cors", "sec-fetch-site": "same-origin", "accept": "text/html"}
        assert reader.client.get("/runs", headers=polled).status_code == 200
    assert seen(house) == opened
    assert reader.go("/runs").status_code == 200
    assert seen(house) > opened  # type: ignore[operator]
    house.world.sql(
        "UPDATE prepaid.desk_sessions SET last_seen_at = now() - make_interval(secs => idle_seconds)"
        " WHERE person = :n",
        n=house.person("leadership"),
    )
    idle = seen(house)
    assert reader.ask("{ version }").status_code == 401
    assert reader.go("/runs").headers["location"] == "/sign-in?next=/runs"
    assert seen(house) == idle


def test_who_signs_out_at_the_desk_is_out(house: House) -> None:
    engineer = house.visitor("engineering")
    name = house.person("engineering")
    assert f"<b>{name}</b>" in engineer.client.get("/account").text
    assert engineer.ask("{ version }").status_code == 200
    house.world.sql("SELECT prepaid.desk_end_sessions(:n)", n=name)
    assert engineer.ask("{ version }").status_code == 401


def test_a_team_that_was_left_counts_at_once(house: House) -> None:
    name = house.person("engineering")
    engineer = house.visitor("engineering")
    house.world.sql(f'REVOKE engineering FROM "{name}"')
    accounts.add(house.world.engine, name, "finance")
    try:
        assert engineer.ask("{ version }").status_code == 200
        assert engineer.ask(LAUNCH, params=quick()).status_code == 403
    finally:
        house.world.sql(f'REVOKE finance FROM "{name}"')
        accounts.add(house.world.engine, name, "engineering")


# --- websockets ---------------------------------------------------------------------------------


def listen(client: TestClient, origin: str | None = HOME, **headers: str):  # type: ignore[no-untyped-def]
    sent = headers | ({"origin": origin} if origin else {})
    return client.websocket_connect(
        "ws://127.0.0.1:3000/graphql", subprotocols=["graphql-ws"], headers=sent
    )


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "http://evil.example",
        "http://127.0.0.1:9999",
        "http://localhost:3000",
        "null",
        "file://",
    ],
)
def test_no_other_page_listens(house: House, origin: str | None) -> None:
    engineer = house.visitor("engineering")
    with (
        pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
        listen(engineer.client, origin),
    ):
        pass


def test_who_is_not_signed_in_does_not_listen(house: House) -> None:
    with (
        pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
        listen(house.visitor().client),
    ):
        pass


@pytest.mark.usefixtures("nothing_launched")
def test_a_websocket_launches_nothing(house: House) -> None:
    with listen(house.visitor("engineering").client) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}
        socket.send_json({"type": "start", "id": "1", "payload": BODY})
        assert socket.receive_json()["type"] == "error"


@pytest.mark.parametrize("end", ["sign out", "idle", "over", "disabled"])
def test_an_ended_session_hears_no_more(
    house: House, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(guard, "WATCH_SECONDS", 0.05)
    name = house.person("customer_success")
    reader = house.visitor("customer_success")
    with listen(reader.client) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}
        time.sleep(0.3)  # it is still open after some looks
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}
        house.world.sql(
            {
                "sign out": "SELECT prepaid.desk_end_sessions(:n)",
                "idle": "UPDATE prepaid.desk_sessions SET last_seen_at = '2026-01-01'"
                " WHERE person = :n",
                "over": "UPDATE prepaid.desk_sessions SET expires_at = now() WHERE person = :n",
                "disabled": "SELECT prepaid.set_disabled(:n, true)",
            }[end],
            n=name,
        )
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == 1008
    if end == "disabled":
        house.world.sql("SELECT prepaid.set_disabled(:n, false)", n=name)


def test_a_program_listens_with_the_token(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WATCH_SECONDS", 0.05)
    with listen(house.visitor().client, None, authorization=f"Bearer {TOKEN}") as socket:
        time.sleep(0.2)
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}
