"""Who may not: wrong role, no or old token, other sites, ended sessions, markup in names."""

import re
from collections.abc import Callable

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from prepaid_pipeline.desk.app import build
from prepaid_pipeline.desk.pages import overview
from prepaid_pipeline.settings.desk import load
from prepaid_pipeline.settings.load import Settings
from tests.desk.conftest import PASSWORD, Browser, form_token
from tests.desk.many import payments
from tests.world import World

Browsers = Callable[..., Browser]


@pytest.fixture
def plan(world: World) -> int:
    return payments(world, 1)[0]


def decisions(world: World) -> int:
    return world.sql("SELECT count(*) FROM prepaid.sign_offs")


def decide(browser: Browser, task: int, token: str | None = None, **fields: object) -> str:
    form = {"decision": "approved", "seen": "0", "note": ""} | fields
    return browser.post(f"/payments/{task}/decide", token=token, **form).text


DECIDERS = {"finance", "customer_success", "engineering"}
PAGES = {
    "/": DECIDERS | {"leadership"},
    "/payments": {"finance", "engineering"},
    "/payments/{task}": {"finance", "engineering"},
    "/payments/confirm?all=yes": {"finance"},
    "/parked": {"finance", "engineering"},
    "/refunds": {"finance", "engineering"},
    "/quality": {"customer_success", "engineering"},
    "/held": DECIDERS,
    "/mails": {"customer_success", "engineering"},
    "/mails/{mail}": {"customer_success", "engineering"},
    "/history": DECIDERS,
    "/plans/{plan}": DECIDERS,
    "/plans?name={plan}": DECIDERS,
    "/reports": DECIDERS | {"leadership"},
}


def test_each_team_sees_its_pages_and_no_others(world: World, browser: Browsers, plan: int) -> None:
    task = world.task(plan)
    mail = world.sql(
        "INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient, status)"
        " VALUES (:plan, 'payment_reminder', '3', 'p@example.com', 'failed') RETURNING email_id",
        plan=plan,
    )
    for team in sorted(DECIDERS | {"leadership"}):
        person = browser(team)
        for path, teams in PAGES.items():
            answer = person.get(path.format(task=task, plan=plan, mail=mail))
            assert answer.status_code == (200 if team in teams else 403), (team, path)


def test_nobody_gets_in_without_signing_in(browser: Browsers, plan: int) -> None:
    visitor = browser()
    for path in ("/", "/payments", "/payments/1", f"/plans/{plan}", "/reports", "/history"):
        answer = visitor.get(path)
        assert answer.url.path == "/sign-in"
        assert "Customer" not in answer.text
    answer = visitor.get("/payments?search=abc")
    assert answer.url.params["next"] == "/payments?search=abc"


def test_the_wrong_role_decides_nothing(world: World, browser: Browsers, plan: int) -> None:
    for team in ("customer_success", "leadership", "engineering"):
        other = browser(team)
        token = form_token(other.get("/reports"))
        assert "Not for your team" in decide(other, world.task(plan), token)
        pairs = f"{world.task(plan)}:0"
        assert other.post("/payments/approve", token=token, tasks=pairs).status_code == 403
    assert decisions(world) == 0


def test_finance_cannot_decide_a_quality_check(world: World, browser: Browsers, plan: int) -> None:
    world.approve(plan)
    world.settle()
    check = world.task(plan, "quality_check")
    finance = browser("finance")
    token = form_token(finance.get("/"))
    before = decisions(world)
    # On their own address for payments, with the number of another team's task.
    answer = decide(finance, check, token, decision="passed")
    assert f"task {check} cannot be decided: it belongs to customer_success" in answer.lower()
    assert finance.post(f"/quality/{check}/decide", token=token, seen="0").status_code == 403
    assert decisions(world) == before


def test_a_form_needs_the_token_of_its_session(world: World, browser: Browsers, plan: int) -> None:
    finance = browser("finance")
    task = world.task(plan)
    old = form_token(finance.get(f"/payments/{task}"))
    for token in ("", "nonsense", old[:-3] + "abc"):
        assert "has expired" in decide(finance, task, token)
    finance.post("/sign-out", token=old)
    assert "You are signed out" in finance.last.text
    finance.sign_in(finance.name)
    assert "has expired" in decide(finance, task, old)
    other = browser("finance")
    assert "has expired" in decide(other, task, form_token(finance.get("/")))
    assert decisions(world) == 0
    finance.get(f"/payments/{task}")
    assert "approved" in decide(finance, task)
    assert decisions(world) == 1


def test_a_form_from_another_site_is_refused(world: World, browser: Browsers, plan: int) -> None:
    finance = browser("finance")
    task = world.task(plan)
    token = form_token(finance.get(f"/payments/{task}"))
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://elsewhere.example.com"},
        {"origin": "null"},
    ):
        finance.headers = headers
        assert "sent by another site" in decide(finance, task, token)
    assert decisions(world) == 0
    # A browser without fetch metadata still works.
    finance.get(f"/payments/{task}")
    finance.headers = {"origin": "http://127.0.0.1:3001"}
    decide(finance, task)
    assert decisions(world) == 1


ENDINGS = {
    "over": "expires_at = clock_timestamp()",
    "idle": "last_seen_at = clock_timestamp() - interval '31 minutes'",
    "revoked": "revoked_at = clock_timestamp()",
}


def test_an_ended_session_records_nothing(world: World, browser: Browsers, plan: int) -> None:
    task = world.task(plan)
    for ending in ENDINGS.values():
        finance = browser("finance")
        finance.get(f"/payments/{task}")
        world.sql(f"UPDATE prepaid.desk_sessions SET {ending}")  # noqa: S608
        answer = decide(finance, task)
        assert "Your session has ended, and nothing was recorded" in answer
    assert decisions(world) == 0


def test_a_disabled_person_is_out_at_once(world: World, browser: Browsers, plan: int) -> None:
    finance = browser("finance")
    finance.get("/payments")
    world.sql("SELECT prepaid.set_disabled(:name, true)", name=finance.name)
    assert finance.get("/payments").url.path == "/sign-in"
    assert finance.sign_in(finance.name).status_code == 401


def test_signing_out_everywhere_ends_the_other_browser(browser: Browsers) -> None:
    first = browser("finance")
    second = browser(name=first.name)
    first.post("/sign-out", everywhere="yes")
    assert second.get("/payments").url.path == "/sign-in"


def test_five_wrong_passwords_lock_the_account(
    world: World, browser: Browsers, new_person: Callable[..., str]
) -> None:
    name, visitor = new_person("finance"), browser()
    texts = set()
    for _ in range(5):
        answer = visitor.sign_in(name, "wrong password 1")
        assert answer.status_code == 401
        texts.add(answer.text.replace(form_token(answer), ""))
    assert visitor.sign_in(name).status_code == 401
    # A name that nobody has is answered in the same words.
    answer = visitor.sign_in("nobody_at_all", "wrong password 1")
    assert answer.status_code == 401
    texts.add(answer.text.replace(form_token(answer), "").replace("nobody_at_all", name))
    assert len(texts) == 1
    world.sql("UPDATE prepaid.desk_accounts SET locked_until = clock_timestamp()")
    assert visitor.sign_in(name).status_code == 200


def test_the_session_cookie_is_not_readable_and_its_hash_is_stored(
    world: World, browser: Browsers, new_person: Callable[..., str]
) -> None:
    visitor = browser()
    visitor.sign_in(new_person("finance"))
    (opened,) = visitor.last.history
    cookie = next(c for c in opened.headers.get_list("set-cookie") if c.startswith("desk="))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    token = cookie.partition("=")[2].partition(";")[0]
    stored = world.sql("SELECT encode(token_hash, 'hex') FROM prepaid.desk_sessions")
    assert token not in stored
    assert len(token) >= 40


def test_signing_in_never_leads_to_another_site(
    browser: Browsers, new_person: Callable[..., str]
) -> None:
    name = new_person("finance")
    for elsewhere in (
        "//evil.example.com",
        "https://evil.example.com",
        "/\\evil.example.com",
        "\\\\e",
    ):
        visitor = browser()
        visitor.get("/sign-in")
        visitor.post("/sign-in", name=name, password=PASSWORD, next=elsewhere)
        assert str(visitor.last.url) == "http://127.0.0.1:3001/"


def test_headers(browser: Browsers) -> None:
    finance = browser("finance")
    for path in ("/", "/payments", "/static/desk.css", "/no/such/page", "/payments/9999999"):
        headers = finance.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers or "HttpOnly" in headers["set-cookie"]


def test_another_name_for_this_address_is_refused(browser: Browsers) -> None:
    visitor = browser()
    answer = visitor.client.get("/sign-in", headers={"host": "evil.example.com"})
    assert answer.status_code == 400


def test_cookies_are_for_tls_only_behind_a_proxy(
    desk_engine: Engine, settings: Settings, new_person: Callable[..., str]
) -> None:
    desk = load(
        {
            "PREPAID_DESK_PROXY": "10.0.0.5",
            "PREPAID_DESK_URL": "https://desk.example.com",
            "PREPAID_DESK_SECRET": "x" * 32,
        }
    )
    client = TestClient(build(desk_engine, settings, desk), base_url="https://desk.example.com")
    visitor = Browser(client)
    visitor.sign_in(new_person("finance"))
    (opened,) = visitor.last.history
    for cookie in opened.headers.get_list("set-cookie"):
        assert "Secure" in cookie
    assert any(c.startswith("__Host-desk=") for c in opened.headers.get_list("set-cookie"))
    assert visitor.last.headers["strict-transport-security"]


def test_past_the_proxy_in_plain_text_nobody_gets_in(
    desk_engine: Engine, settings: Settings
) -> None:
    desk = load(
        {
            "PREPAID_DESK_PROXY": "10.0.0.5",
            "PREPAID_DESK_URL": "https://desk.example.com",
            "PREPAID_DESK_SECRET": "x" * 32,
        }
    )
    client = TestClient(build(desk_engine, settings, desk), base_url="http://desk.example.com")
    # Whom the server does not know as the proxy is not believed.
    answer = client.get("/sign-in", headers={"x-forwarded-proto": "https"})
    assert answer.status_code == 421
    assert "The sign-off desk is at https://desk.example.com." in answer.text
    assert client.get("/health").text == "ok\n"


def test_markup_in_names_and_notes_is_text(world: World, browser: Browsers, plan: int) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    world.sql("UPDATE prepaid.customers SET name = :evil", evil=evil)
    world.sql("UPDATE prepaid.service_plans SET customer_name = :e, plan_name = :e", e=evil)
    world.record("INV-<script>", provider_ref=evil, customer_ref=evil, amount="1")
    world.match()
    world.approve(plan, word="reject", note=evil)
    finance = browser("finance")
    task = world.task(plan)
    parked = world.sql("SELECT task_id FROM prepaid.tasks WHERE kind = 'payment_review'")
    for path in (
        "/payments",
        f"/payments/{task}",
        f"/plans/{plan}",
        "/held",
        "/parked",
        "/history",
        f"/parked/{parked}",
        f"/payments?search={evil}",
    ):
        page = finance.get(path)
        assert page.status_code == 200
        assert "<script" not in page.text
        assert "<img" not in page.text
        assert not re.search(r"\son\w+=[^&]", re.sub(r"&[#\w]+;[^<]*", "", page.text))
        assert "style=" not in page.text
    assert "&lt;script&gt;" in finance.get(f"/plans/{plan}").text


ODD = (
    "/payments/99999999999999999999",
    "/payments/0",
    "/plans/123456",
    "/plans/99999999999999999999",
    "/parked/7",
    "/refunds/7",
    "/reports/2026-13",
    "/reports/2026-01",
    "/reports/..%2f..%2fetc",
    "/payments?after=x",
    "/payments?after=99999999999999999999",
    "/payments?currency=%00",
    "/payments?show=%27&search=%00%25_%5C",
    "/payments/confirm?task=x",
    "/history?after=-1",
)


def test_odd_addresses_get_a_readable_page(browser: Browsers) -> None:
    finance = browser("finance")
    for path in ODD:
        answer = finance.get(path)
        assert answer.status_code in (200, 404), path
        assert "<h1>" in answer.text


def test_an_unknown_address_knows_who_is_signed_in(
    browser: Browsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody, finance = browser(), browser("finance")
    for path in ("/nowhere", "/payments/none"):
        assert '<a class="button" href="/sign-in">Sign in</a>' in nobody.get(path).text
        page = finance.get(path)
        assert page.status_code == 404
        assert '<a class="button" href="/">To the overview</a>' in page.text
        assert f"<b>{finance.name}</b>" in page.text
    # The page is one to go on from: its own form signs out.
    assert "You are signed out." in finance.post("/sign-out").text

    again = browser(name=finance.name)
    monkeypatch.setattr(overview, "rows", lambda *_: 1 / 0)
    again.client._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
    fault = again.get("/")
    assert fault.status_code == 500
    assert '<a class="button" href="/">To the overview</a>' in fault.text


def test_a_form_that_is_too_large_is_refused(world: World, browser: Browsers, plan: int) -> None:
    finance = browser("finance")
    finance.get("/payments")
    answer = finance.post("/payments/approve", tasks="1:0," * 300_000)
    assert answer.status_code == 413
    assert decisions(world) == 0
