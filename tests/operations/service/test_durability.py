"""`prepaid doctor` on a server as the product starts it, and on one that can lose commits.

A server of its own: the one that the other tests share need not survive a crash of the machine.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from prepaid_pipeline.database import connections, embedded, migrations
from prepaid_pipeline.operations.service import doctor
from tests.operations.service.conftest import Command


@pytest.fixture
def home() -> Iterator[Path]:
    """An installation's home; its embedded server is stopped at the end."""
    # Not in pytest's own directory: tests/conftest.py says why.
    home = Path(tempfile.mkdtemp(prefix="prepaid-durable-"))
    yield home
    embedded.stop(home)
    shutil.rmtree(home)


def set_and_wait(url: str, setting: str, value: str) -> None:
    """ALTER SYSTEM, and wait until new sessions have it: a reload is not done when it returns."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET {setting} = {value}")  # type: ignore[arg-type]
        connection.execute("SELECT pg_reload_conf()")
    stop_by = time.monotonic() + 20
    while True:
        with psycopg.connect(url) as connection:
            shown = connection.execute(f"SHOW {setting}").fetchone()  # type: ignore[arg-type]
        if shown == (value,):
            return
        assert time.monotonic() < stop_by, setting
        time.sleep(0.05)


@pytest.mark.long
def test_a_set_up_without_fault_and_one_that_can_lose_commits(
    home: Path, prepaid: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = embedded.start(home)
    engine = connections.engine_for(make_url(url))
    migrations.upgrade(engine)
    engine.dispose()

    def findings() -> tuple[int, dict[str, tuple[bool, str]]]:
        code, output, _ = prepaid("doctor", "--json", home=str(home), database_url=url)
        return code, {row["check"]: (row["ok"], row["text"]) for row in json.loads(output)}

    code, found = findings()
    assert (code, [check for check, (ok, _) in found.items() if not ok]) == (0, [])
    assert found["code location"] == (True, "loads")
    assert found["up"] == (True, "not running")
    monkeypatch.setattr(doctor, "_code_location", lambda _: "not tried")
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        set_and_wait(url, setting, "off")
        code, found = findings()
        assert code == 1
        assert [check for check, (ok, _) in found.items() if not ok] == ["durability"]
        assert found["durability"][1].startswith(f"{setting} is off: a crash of the server can")
        set_and_wait(url, setting, "on")
    assert findings()[0] == 0
