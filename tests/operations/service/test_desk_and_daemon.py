"""`prepaid up` for real: what people decide at its desk, its daemon carries out."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import make_url

from prepaid_pipeline.database import connections
from tests.desk.conftest import PASSWORD
from tests.desk.many import payments
from tests.operations.service.running import Up, started
from tests.world import World

# The sensor looks every 30 s; a run takes about 10 to start, more on a busy machine.
_SECONDS = 180.0


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with started(tmp_path / "output") as running:
        yield running


@contextmanager
def signed_in(up: Up, name: str, team: str) -> Iterator[httpx2.Client]:
    added = up.command("user", "add", name, "--team", team)
    assert added.returncode == 0, added.stderr
    up.command("user", "password", name, "--stdin", typed=f"{PASSWORD}\n")
    home = f"http://127.0.0.1:{up.environ['PREPAID_DESK_PORT']}"
    with httpx2.Client(base_url=home, follow_redirects=True) as client:
        page = send(client, "/sign-in", "/sign-in", name=name, password=PASSWORD, next="/account")
        assert f"<h1>{name}</h1>" in page
        yield client


def send(client: httpx2.Client, page: str, form: str, **fields: str) -> str:
    """Open a page and send one of its forms; the page that answers."""
    opened = client.get(page).text
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', opened)
    return client.post(form, data=dict(hidden) | fields).text


def wait_for(world: World, statement: str, found: object) -> float:
    started = time.monotonic()
    while world.sql(statement) != found:
        assert time.monotonic() - started < _SECONDS
        time.sleep(0.5)
    return time.monotonic() - started


@pytest.mark.long
def test_decided_in_the_browser_carried_out_by_the_daemon(up: Up) -> None:
    engine = connections.engine_for(make_url(up.command("db", "url").stdout.strip()))
    world = World(engine)
    try:
        payments(world, 20)
        with signed_in(up, "test_ann", "finance") as finance:
            page = send(finance, "/payments/confirm?all=yes", "/payments/approve")
        assert "20 payments approved." in page
        settled = "SELECT count(*) FROM prepaid.tasks WHERE kind = 'quality_check'"
        print(f"settled after {wait_for(world, settled, 20):.0f} s")  # noqa: T201
        active = "SELECT count(*) FROM prepaid.service_plans WHERE status = 'Active'"
        assert world.sql(active) == 20
        check = world.sql("SELECT min(task_id) FROM prepaid.tasks WHERE kind = 'quality_check'")
        page, form = f"/quality/{check}", f"/quality/{check}/decide"
        with signed_in(up, "test_cleo", "customer_success") as care:
            assert "failed." in send(care, page, form, decision="failed", note="answers 404")
        held = "SELECT count(*) FROM prepaid.holds WHERE reason_code = 'quality_failed'"
        print(f"held after {wait_for(world, held, 1):.0f} s")  # noqa: T201
        assert world.sql("SELECT count(*) FROM prepaid.tasks WHERE kind = 'quality_follow_up'") == 1
    finally:
        engine.dispose()
