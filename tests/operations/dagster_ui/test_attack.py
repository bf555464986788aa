"""In a real browser: pages of another site, and of the same one, try to drive Dagster.

Each way is first shown to work on Dagster's own server: what it does not stop, the guard must.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster_webserver.webserver import DagsterWebserver
from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.desk.chromium import CHROMIUM, needs_chromium, served
from tests.desk.conftest import PASSWORD
from tests.mail.conftest import free_port
from tests.operations.dagster_ui.conftest import House

pytestmark = [pytest.mark.long, needs_chromium]
LAUNCH = (
    'mutation { launchRun(executionParams: {selector: {repositoryName: "__repository__",'
    ' repositoryLocationName: "small", jobName: "quick"}}) { __typename } }'
)
# Each adds to what it is told, and none waits for more than four seconds.
_SCRIPT = """
const target = TARGET, query = QUERY, url = target + '/graphql';
const asked = url + '?query=' + encodeURIComponent(query);
const body = JSON.stringify({query});
const later = () => new Promise(done => setTimeout(done, 4000));
function element(tag, values, event) {
  return new Promise(done => {
    const made = Object.assign(document.createElement(tag), values);
    made.onload = made.onerror = () => done(tag);
    document.body.append(made);
  });
}
function form(values, name, value) {
  const frame = Object.assign(document.createElement('iframe'), {name: 'f' + Math.random()});
  document.body.append(frame);
  const made = Object.assign(document.createElement('form'), {method: 'POST', ...values});
  made.target = frame.name;
  const field = Object.assign(document.createElement('input'), {name, value});
  made.append(field); document.body.append(made);
  return new Promise(done => { frame.onload = done; made.submit(); });
}
const send = (type, mode) =>
  fetch(url, {method: 'POST', body, mode, credentials: 'include', headers: {'content-type': type}});
function socket() {
  return new Promise(done => {
    const made = new WebSocket(url.replace('http', 'ws'), 'graphql-ws');
    made.onopen = () => made.send(JSON.stringify({type: 'connection_init'}));
    made.onmessage = said => done('heard ' + JSON.parse(said.data).type);
    made.onclose = made.onerror = () => done('refused');
  });
}
const ways = {
  image: () => element('img', {src: asked}),
  script: () => element('script', {src: asked}),
  style: () => element('link', {rel: 'stylesheet', href: asked}),
  object: () => element('object', {data: asked}),
  frame: () => element('iframe', {src: asked}),
  form_in_address: () => form({action: asked}, 'x', 'y'),
  form_as_text: () => form({action: url, enctype: 'text/plain'},
                           body.slice(0, -1) + ',"x":"', '"}'),
  get_form: () => form({action: url, method: 'GET'}, 'query', query),
  fetch_text: () => send('text/plain', 'no-cors'),
  fetch_nearly_json: () => send('text/plain; application/json', 'no-cors'),
  fetch_in_address: () => fetch(asked, {method: 'POST', mode: 'no-cors', credentials: 'include'}),
  fetch_get: () => fetch(asked, {mode: 'no-cors', credentials: 'include'}),
  fetch_json: () => send('application/json', 'cors'),
  beacon: async () => navigator.sendBeacon(url, new Blob([body], {type: 'text/plain'})),
  socket: socket,
};
window.attack = name => Promise.race([ways[name]().catch(String), later()]);
window.names = Object.keys(ways);
"""


@contextmanager
def page_of_another(script: str) -> Iterator[int]:
    """A web server with a page that has the script; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(f"<!doctype html><body><script>{script}</script>".encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[[], BrowserContext]]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--host-resolver-rules=MAP evil.test 127.0.0.1",
            ],
        )
        yield chromium.new_context
        chromium.close()


def of_dagster_alone(house: House) -> Any:
    """Dagster's own server on the same workspace, as ``dagster-webserver`` serves it."""
    plain = copy.copy(house.workspace)
    plain.__class__ = WorkspaceProcessContext  # type: ignore[assignment]
    return DagsterWebserver(plain).create_asgi_app()


def sign_in(page: Page, home: str, name: str) -> None:
    page.goto(f"{home}/runs")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{home}/runs*")


def tried(house: House, page: Page) -> dict[str, str]:
    """Each way in turn -> whether it launched a run, or what it heard."""
    found = {}
    for name in page.evaluate("window.names"):
        before = house.instance.get_runs_count()
        told = page.evaluate("name => window.attack(name)", name)
        after = house.instance.get_runs_count()
        found[name] = "launched" if after > before else str(told or "nothing")
    return found


def script(home: str) -> str:
    return _SCRIPT.replace("TARGET", repr(home)).replace("QUERY", repr(LAUNCH))


def test_dagster_alone_is_driven_by_any_page(
    house: House, browser: Callable[[], BrowserContext]
) -> None:
    """Otherwise the next test would show nothing."""
    with (
        served(of_dagster_alone(house), free_port()) as home,
        page_of_another(script(home)) as port,
    ):
        page = browser().new_page()
        page.goto(f"http://evil.test:{port}/")
        found = tried(house, page)
    # (A frame and a form by GET get the page in which queries are written.)
    launched = {name for name, what in found.items() if what == "launched"}
    by_address = {"image", "script", "style", "form_in_address", "fetch_in_address", "fetch_get"}
    assert launched == by_address | {"fetch_nearly_json"}, found
    assert found["socket"] == "heard connection_ack"


@pytest.mark.parametrize("site", ["evil.test", "127.0.0.1"])
def test_no_page_drives_dagster_through_the_guard(
    house: House, browser: Callable[[], BrowserContext], site: str
) -> None:
    """Of another site, and of this one on another port, which gets our cookies."""
    before = house.instance.get_runs_count()
    port = free_port()
    app = house.app(ui_url=f"http://127.0.0.1:{port}")
    with served(app, port) as home, page_of_another(script(home)) as other:
        context = browser()
        own = context.new_page()
        sign_in(own, home, house.person("engineering"))
        page = context.new_page()
        page.goto(f"http://{site}:{other}/")
        found = tried(house, page)
        assert "launched" not in found.values(), found
        assert found["socket"] == "refused"

        # A link is followed to the page, and does nothing there.
        page.evaluate("url => { location.href = url }", f"{home}/graphql?query={LAUNCH}")
        page.wait_for_url(f"{home}/graphql*")
        page.wait_for_load_state("networkidle")
        # Another name for this machine (DNS rebinding).
        answer = page.goto(f"http://evil.test:{port}/")
        assert answer is not None
        assert answer.status == 400
        assert house.instance.get_runs_count() == before

        # And our own page does both, so it is not that nothing works.
        own.evaluate(script(home))
        assert own.evaluate("window.attack('socket')") == "heard connection_ack"
        own.evaluate("window.attack('fetch_json')")
        assert house.instance.get_runs_count() == before + 1
        context.close()


def test_signing_out_closes_what_an_open_tab_hears(
    house: House, browser: Callable[[], BrowserContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prepaid_pipeline.operations.dagster_ui import guard

    monkeypatch.setattr(guard, "WATCH_SECONDS", 0.1)
    port = free_port()
    with served(house.app(ui_url=f"http://127.0.0.1:{port}"), port) as home:
        context = browser()
        tab = context.new_page()
        sign_in(tab, home, house.person("finance"))
        tab.evaluate(
            """url => { const made = new WebSocket(url, 'graphql-ws'); window.ended = 0;
               made.onclose = event => { window.ended = event.code } }""",
            f"ws://127.0.0.1:{port}/graphql",
        )
        account = context.new_page()
        account.goto(f"{home}/account")
        account.get_by_role("button", name="Sign out", exact=True).click()
        account.get_by_text("You are signed out.").wait_for()
        tab.wait_for_function("() => window.ended === 1008", timeout=10_000)
        tab.reload()
        tab.get_by_role("heading", name="Sign in").wait_for()
        context.close()
