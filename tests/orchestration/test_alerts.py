"""Alerts reach a webhook over real HTTP, and each matter is told once."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine

from prepaid_pipeline.audit import seals
from prepaid_pipeline.mail import alerts
from prepaid_pipeline.mail.alerts import AlertNotSent
from prepaid_pipeline.settings.load import Settings, load
from tests.mail.conftest import free_port
from tests.world import TODAY, World

Evaluate = Callable[..., Any]


@dataclass
class Hook:
    """A server that answers with these codes, in order, and then with 200."""

    url: str
    codes: list[int] = field(default_factory=list)
    posts: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 0


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.attempts += 1
            code = found.codes.pop(0) if found.codes else 200
            if code == 200:
                assert self.headers["content-type"] == "application/json"
                found.posts.append(json.loads(body))
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found = Hook(f"http://127.0.0.1:{server.server_port}/T1/se-cret")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setattr(alerts, "_PAUSES", (0.01, 0.01, None))
    monkeypatch.setenv("PREPAID_ALERT_WEBHOOK", found.url)
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def here(settings: Settings, **env: str) -> Settings:
    return load({"PREPAID_HOME": str(settings.home), **env})


def test_a_webhook_gets_json(hook: Hook, settings: Settings) -> None:
    told = alerts.tell(here(settings, PREPAID_ALERT_WEBHOOK=hook.url), "It broke", "Look.\n")
    assert told == 1
    (post,) = hook.posts
    assert (post["source"], post["subject"]) == ("prepaid", "It broke")
    assert post["text"] == "It broke\n\nLook.\n"
    assert post["at"].endswith("+00:00")


@pytest.mark.parametrize(
    ("codes", "attempts", "arrives"),
    [([503, 502], 3, True), ([429], 2, True), ([500, 500, 500], 3, False), ([404], 1, False)],
)
def test_what_is_tried_again(
    hook: Hook, settings: Settings, codes: list[int], attempts: int, arrives: bool
) -> None:
    hook.codes = list(codes)
    with_hook = here(settings, PREPAID_ALERT_WEBHOOK=hook.url)
    if arrives:
        assert alerts.tell(with_hook, "It broke", "") == 1
    else:
        with pytest.raises(AlertNotSent, match=f"answered {codes[-1]}") as failed:
            alerts.tell(with_hook, "It broke", "")
        assert "se-cret" not in str(failed.value)
    assert (hook.attempts, len(hook.posts)) == (attempts, int(arrives))


def test_one_way_is_enough(hook: Hook, settings: Settings) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/se-cret"
    by_mail = here(settings, PREPAID_ALERT_WEBHOOK=nobody, PREPAID_ALERT_TO="a@example.com")
    assert alerts.tell(by_mail, "It broke", "Look.") == 1
    assert len(list((settings.home / "mail").rglob("*.eml"))) == 1
    with pytest.raises(AlertNotSent, match=r"cannot be reached \(URLError\)"):
        alerts.tell(here(settings, PREPAID_ALERT_WEBHOOK=nobody), "It broke", "")
    assert alerts.tell(here(settings), "Nobody to tell", "") == 0


def test_what_waits_too_long_is_told_once(
    hook: Hook, world: World, location: dg.RepositoryDefinition, evaluate: Evaluate
) -> None:
    first = evaluate("waiting_too_long")
    assert first.skip_message == "nothing waits too long"
    world.tax_rate("0.0725")
    for _ in range(3):
        world.due_renewal()
    plans = world.open()
    world.sql("UPDATE prepaid.tasks SET due_on = CURRENT_DATE - 8 RETURNING 1")
    world.pay_and_approve(plans[0])
    world.settle()
    world.sql("UPDATE prepaid.emails SET created_at = created_at - interval '25 h' RETURNING 1")
    # A batch whose worker died, and one whose plans wait for people.
    world.sql(
        "WITH b AS (INSERT INTO prepaid.batches (queue, as_of, leased_until) VALUES"
        " ('settle_renewals', CURRENT_DATE, clock_timestamp() - interval '2 h')"
        " RETURNING batch_id) UPDATE prepaid.unsettled_plans u SET batch_id = b.batch_id FROM b"
        " WHERE u.service_plan_id = :plan RETURNING 1",
        plan=plans[1],
    )
    told = evaluate("waiting_too_long", first.cursor)
    (post,) = hook.posts
    for said in (
        "of settle_renewals has not gone on since",
        "2 tasks (payment verification) are overdue",
        "1 emails have been waiting for more than 24 hours",
    ):
        assert said in post["text"]
    assert "example.com" not in post["text"]
    # One more of the same is the same matter.
    world.sql("UPDATE prepaid.tasks SET due_on = CURRENT_DATE - 9 RETURNING 1")
    again = evaluate("waiting_too_long", told.cursor)
    assert len(hook.posts) == 1
    world.sql("UPDATE prepaid.emails SET created_at = clock_timestamp() RETURNING 1")
    over = evaluate("waiting_too_long", again.cursor)
    world.sql("UPDATE prepaid.emails SET created_at = created_at - interval '25 h' RETURNING 1")
    evaluate("waiting_too_long", over.cursor)
    assert len(hook.posts) == 2
    assert "emails have been waiting" in hook.posts[1]["text"]
    assert "overdue" not in hook.posts[1]["text"]


def test_an_alert_that_reaches_nobody_is_tried_again(
    hook: Hook, world: World, location: dg.RepositoryDefinition, evaluate: Evaluate
) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    world.open()
    world.sql("UPDATE prepaid.tasks SET due_on = CURRENT_DATE - 8 RETURNING 1")
    hook.codes = [500, 500, 500]
    with pytest.raises(Exception, match="answered 500"):
        evaluate("waiting_too_long")
    evaluate("waiting_too_long")
    assert len(hook.posts) == 1


def test_a_job_that_fails_all_day_is_told_once_a_day(
    hook: Hook,
    location: dg.RepositoryDefinition,
    evaluate: Evaluate,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = location.get_job("open_renewals")
    broken = {"ops": {"open_service_plans": {"config": {"as_of": "nonsense"}}}}
    cursor = evaluate("run_failures").cursor
    first = None
    posts = []
    for hours in (0, 1, 5, 23, 25, 26, 47, 49):
        run = job.execute_in_process(broken, instance=instance, raise_on_error=False)
        (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
        first = first or record.end_time
        moved = first + timedelta(hours=hours).total_seconds()
        with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
            connection.exec_driver_sql(
                "UPDATE runs SET end_time = ? WHERE run_id = ?", (moved, run.run_id)
            )
        cursor = evaluate("run_failures", cursor).cursor
        posts.append(len(hook.posts))
    assert posts == [1, 1, 1, 1, 2, 2, 2, 3]
    assert "Run of open_renewals failed" in hook.posts[0]["subject"]


def test_a_changed_audit_log_fails_its_job(
    world: World, engine: Engine, location: dg.RepositoryDefinition, tmp_path: Path
) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    world.open()
    seals.seal(engine, wait=True)
    job = location.get_job("verify_audit_log")
    config = {"ops": {"verify_whole_log": {"config": {"as_of": str(TODAY)}}}}
    assert job.execute_in_process(config).success
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE prepaid.audit_log DISABLE TRIGGER USER")
        connection.exec_driver_sql("UPDATE prepaid.audit_log SET actor = 'nobody'")
    with pytest.raises(dg.Failure, match="The audit log was changed"):
        job.execute_in_process(config)
