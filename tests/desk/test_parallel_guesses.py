"""Guesses at the same moment are counted before they are compared; slow bodies are given up."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from prepaid_pipeline.desk import passwords
from prepaid_pipeline.desk.guards import BodyDeadline
from tests.desk.conftest import PASSWORD, Browser
from tests.mail.conftest import free_port
from tests.world import World

Browsers = Callable[..., Browser]


def _guess(browser: Browsers, name: str, guesses: list[str]) -> list[int]:
    """Send all of them at the same moment."""
    pages = [browser() for _ in guesses]
    for page in pages:
        page.get("/sign-in")
    ready = threading.Barrier(len(guesses))

    def send(page: Browser, guess: str) -> int:
        ready.wait()
        return page.post("/sign-in", name=name, password=guess, next="/").status_code

    with ThreadPoolExecutor(len(guesses)) as threads:
        return list(threads.map(send, pages, guesses))


def test_at_most_five_are_compared(
    world: World,
    browser: Browsers,
    new_person: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, compared, fits = new_person("finance"), [], passwords.fits

    def watched(password: str, stored: str | None) -> bool:
        if stored is not None:
            compared.append(password)
        return fits(password, stored)

    monkeypatch.setattr(passwords, "fits", watched)
    assert _guess(browser, name, [f"wrong {n}" for n in range(14)]) == [401] * 14
    assert len(compared) == 5
    assert world.sql("SELECT failed FROM prepaid.desk_accounts WHERE person = :n", n=name) == 5
    assert browser().sign_in(name).status_code == 401


def test_the_right_one_among_many_is_let_in_or_refused(
    world: World, browser: Browsers, new_person: Callable[..., str]
) -> None:
    name = new_person("finance")
    answers = _guess(browser, name, [*(f"wrong {n}" for n in range(13)), PASSWORD])
    assert set(answers[:-1]) == {401}
    assert answers[-1] in (200, 401)
    assert world.sql("SELECT failed FROM prepaid.desk_accounts WHERE person = :n", n=name) <= 5


def test_the_fifth_may_be_right(
    world: World, browser: Browsers, new_person: Callable[..., str]
) -> None:
    name = new_person("finance")
    for _ in range(4):
        assert browser().sign_in(name, "wrong").status_code == 401
    assert browser().sign_in(name).status_code == 200
    assert world.sql("SELECT failed FROM prepaid.desk_accounts WHERE person = :n", n=name) == 0
    locked = "SELECT count(*) FROM prepaid.audit_log WHERE event = 'account_locked'"
    assert world.sql(locked) == 0


def test_a_slow_body_is_given_up() -> None:
    async def read(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    app = Starlette(
        routes=[Route("/", read, methods=["POST"])],
        middleware=[Middleware(BodyDeadline, seconds=0.2)],
    )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        assert _answer(port, head + b"four") == 200
        assert _answer(port, head + b"f") == 408
    finally:
        server.should_exit = True
        thread.join()


def _answer(port: int, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(request)
        answer = HTTPResponse(client)
        answer.begin()
        return answer.status
