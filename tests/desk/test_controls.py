"""Each control of the pages is taken away in turn, and what it stopped then happens.

Those of the database itself are in tests/people/test_controls.py.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from time import sleep

import pytest
from sqlalchemy import Engine, text

from prepaid_pipeline.desk import app, guards, routing, visits
from prepaid_pipeline.desk.pages import signing_in
from tests.desk.conftest import PASSWORD, Browser, form_token
from tests.desk.many import payments
from tests.world import World

Browsers = Callable[..., Browser]
Patch = pytest.MonkeyPatch


@dataclass
class Scene:
    """What an attempt works with: one open payment that agrees, and browsers.

    Attempts are made twice on the same scene, and by other people each time.
    """

    world: World
    browser: Browsers
    task: int

    def signed(self) -> int:
        return int(self.world.sql("SELECT count(*) FROM prepaid.sign_offs"))

    def rewrite(self, function: str, was: str, becomes: str) -> None:
        body = self.world.sql("SELECT pg_get_functiondef(CAST(:f AS regproc))", f=function)
        assert body.count(was) == 1, function
        with self.world.engine.begin() as connection:
            connection.exec_driver_sql(body.replace(was, becomes).replace("%", "%%"))


def without_a_token(scene: Scene) -> bool:
    finance = scene.browser("finance")
    finance.post(f"/payments/{scene.task}/decide", token="x", decision="approved", seen="0")
    return scene.signed() == 1


def from_another_site(scene: Scene) -> bool:
    finance = scene.browser("finance")
    token = form_token(finance.get(f"/payments/{scene.task}"))
    finance.headers = {"sec-fetch-site": "cross-site"}
    finance.post(f"/payments/{scene.task}/decide", token=token, decision="approved", seen="0")
    return scene.signed() == 1


def _with_an_ended_session(ending: str) -> Callable[[Scene], bool]:
    def attempt(scene: Scene) -> bool:
        finance = scene.browser("finance")
        token = form_token(finance.get(f"/payments/{scene.task}"))
        scene.world.sql(f"UPDATE prepaid.desk_sessions SET {ending}")  # noqa: S608
        finance.post(f"/payments/{scene.task}/decide", token=token, decision="approved", seen="0")
        return scene.signed() == 1

    return attempt


def by_guessing(scene: Scene) -> bool:
    known, visitor = scene.browser("finance").name, scene.browser()
    for _ in range(5):
        visitor.sign_in(known, "a wrong password")
    return visitor.sign_in(known, PASSWORD).status_code == 200


def over_what_was_decided_meanwhile(scene: Scene) -> bool:
    first, second, before = scene.browser("finance"), scene.browser("finance"), scene.signed()
    for finance, decision in ((first, "rejected"), (second, "approved")):
        token = form_token(finance.get(f"/payments/{scene.task}"))
        finance.post(
            f"/payments/{scene.task}/decide",
            token=token,
            decision=decision,
            seen="0",
            note=f"blocked account of {finance.name}",
        )
    return scene.signed() == before + 2


def what_no_longer_agrees(scene: Scene) -> bool:
    finance = scene.browser("finance")
    finance.get("/payments")
    reference = scene.world.sql("SELECT provider_ref FROM prepaid.transactions")
    scene.world.record(
        None,
        "10.73",
        provider_ref=reference,
        status="Chargeback",
        occurred_at="2026-11-03T10:00:00Z",
    )
    finance.post("/payments/approve", tasks=f"{scene.task}:0")
    return scene.signed() == 1


def markup_in_a_name(scene: Scene) -> bool:
    scene.world.sql("UPDATE prepaid.service_plans SET customer_name = '<script>x</script>'")
    return "<script>" in scene.browser("finance").get("/payments").text


def away_after_signing_in(scene: Scene) -> bool:
    known, visitor = scene.browser("finance").name, scene.browser()
    visitor.get("/sign-in")
    visitor.client.follow_redirects = False
    answer = visitor.post("/sign-in", name=known, password=PASSWORD, next="//evil.example.com")
    return str(answer.headers["location"]) == "//evil.example.com"


def under_another_name(scene: Scene) -> bool:
    answer = scene.browser().client.get("/sign-in", headers={"host": "evil.example.com"})
    return answer.status_code == 200


def _ended(condition: str) -> Callable[[Scene, Patch], None]:
    return lambda scene, _: scene.rewrite("prepaid.desk_session", condition, "true")


def _unescaped(scene: Scene, patch: Patch) -> None:
    made = app.rendering.environment

    def environment(timezone: object) -> object:
        templates = made(timezone)  # type: ignore[arg-type]
        templates.autoescape = False
        return templates

    patch.setattr(app.rendering, "environment", environment)


Control = tuple[Callable[[Scene], bool], Callable[[Scene, Patch], None]]
CONTROLS: dict[str, Control] = {
    "the form's token": (
        without_a_token,
        lambda _, p: p.setattr(guards.FormTokens, "fits", lambda *_: True),
    ),
    "Sec-Fetch-Site": (
        from_another_site,
        lambda _, p: p.setattr(routing, "comes_from_elsewhere", lambda _: False),
    ),
    "the session's absolute end": (
        _with_an_ended_session("expires_at = clock_timestamp()"),
        _ended("s.expires_at > clock_timestamp()"),
    ),
    "the session's idle end": (
        _with_an_ended_session("last_seen_at = clock_timestamp() - interval '31 minutes'"),
        _ended("s.last_seen_at > clock_timestamp() - make_interval(secs => s.idle_seconds)"),
    ),
    "the session's revocation": (
        _with_an_ended_session("revoked_at = clock_timestamp()"),
        _ended("s.revoked_at IS NULL"),
    ),
    "the lock-out": (
        by_guessing,
        lambda s, _: s.rewrite(
            "prepaid.desk_account", "coalesce(a.locked_until <= clock_timestamp(), true)", "true"
        ),
    ),
    "what the page showed": (
        over_what_was_decided_meanwhile,
        lambda s, _: s.rewrite("prepaid.decide_as_seen", "last.sign_off_id > asked.seen", "false"),
    ),
    "only what agrees, together": (
        what_no_longer_agrees,
        lambda s, _: s.rewrite("prepaid.decide_as_seen", "IF agreeing_only", "IF false"),
    ),
    "escaping": (markup_in_a_name, _unescaped),
    "paths of this desk only": (
        away_after_signing_in,
        lambda _, p: p.setattr(signing_in, "own_path", lambda text, site: text),
    ),
    "names of this desk only": (
        under_another_name,
        lambda _, p: p.setattr(app, "_hosts", lambda _: ["*"]),
    ),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_it_is_this_control_that_stops_it(
    world: World, make_browsers: Callable[[], Browsers], monkeypatch: Patch, name: str
) -> None:
    attempt, take_away = CONTROLS[name]
    (plan,) = payments(world, 1)
    scene = Scene(world, make_browsers(), world.task(plan))
    assert not attempt(scene)
    take_away(scene, monkeypatch)
    scene.browser = make_browsers()
    assert attempt(scene)


def test_without_the_persons_role_the_desk_can_do_nothing(
    world: World, browser: Browsers, monkeypatch: Patch
) -> None:
    (plan,) = payments(world, 1)
    finance = browser("finance")
    token = form_token(finance.get("/payments"))

    @contextmanager
    def acting_as(engine: Engine, *_: object) -> object:
        with engine.begin() as connection:
            yield connection

    monkeypatch.setattr(visits, "acting_as", acting_as)
    for path in ("/", "/payments", f"/plans/{plan}", "/history", "/reports", "/held"):
        answer = finance.get(path)
        assert answer.status_code == 403, path
        assert "permission denied" in answer.text
    finance.post("/payments/approve", token=token, tasks=f"{world.task(plan)}:0")
    assert world.sql("SELECT count(*) FROM prepaid.sign_offs") == 0


def test_without_the_pages_own_checks_the_database_refuses(
    world: World, make_browsers: Callable[[], Browsers], monkeypatch: Patch
) -> None:
    """The pages leave out what is not for a team; what they forgot is refused all the same."""
    monkeypatch.setattr(routing, "_allowed", lambda *_: True)
    plan, other = payments(world, 2)
    world.approve(other)
    world.settle()
    browser = make_browsers()
    payment, check = world.task(plan), world.task(other, "quality_check")
    before = world.sql("SELECT count(*) FROM prepaid.sign_offs")
    for team in ("customer_success", "leadership", "engineering"):
        person = browser(team)
        token = form_token(person.get("/account"))
        person.post(f"/payments/{payment}/decide", token=token, decision="approved", seen="0")
        person.post("/payments/approve", token=token, tasks=f"{payment}:0")
    for team in ("finance", "leadership", "engineering"):
        person = browser(team)
        token = form_token(person.get("/account"))
        person.post(f"/quality/{check}/decide", token=token, decision="passed", seen="0")
        person.post("/quality/pass", token=token, tasks=f"{check}:0")
    assert world.sql("SELECT count(*) FROM prepaid.sign_offs") == before
    leader = browser("leadership")
    for path in (
        "/payments",
        f"/payments/{payment}",
        "/parked",
        "/quality",
        f"/plans/{plan}",
        "/history",
        "/held",
    ):
        assert leader.get(path).status_code == 403, path
    assert browser("finance").get("/quality").status_code == 403
    assert browser("customer_success").get(f"/payments/{payment}").status_code == 403


@pytest.mark.parametrize("locked", [True, False])
def test_the_row_lock(world: World, browser: Browsers, locked: bool) -> None:
    """Somebody decides, and has not committed yet; whoever looked before waits, and is then told.

    Without the lock the second looks at a moment that is over, and decides on top of the first.
    """
    (plan,) = payments(world, 1)
    task, first, second = world.task(plan), browser("finance"), browser("finance")
    scene = Scene(world, browser, task)
    if not locked:
        scene.rewrite("prepaid.decide_as_seen", "ORDER BY k.task_id FOR UPDATE", "")
    token = form_token(second.get(f"/payments/{task}"))
    form = {"decision": "approved", "seen": "0", "token": token}
    waiting = Thread(target=second.post, args=(f"/payments/{task}/decide",), kwargs=form)
    with world.engine.begin() as connection:
        connection.exec_driver_sql(f'SET LOCAL ROLE "{first.name}"')
        reject = text(
            "SELECT prepaid.decide_as_seen(ARRAY[CAST(:t AS bigint)], ARRAY[0],"
            " 'rejected', 'blocked account', false)"
        )
        connection.execute(reject, {"t": task})
        waiting.start()
        _until_somebody_waits(world)
    waiting.join()
    assert scene.signed() == (1 if locked else 2)


def _until_somebody_waits(world: World) -> None:
    for _ in range(1000):
        if world.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        ):
            return
        sleep(0.01)
    pytest.fail("nobody waits")
