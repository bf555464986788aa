"""Fault 7: the disk is full, under PostgreSQL and under the report store.

What was acknowledged is stored, what was not is as if never asked, no file is half; when there is
room again, everything goes on to its end.
"""

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.database import connections, embedded, migrations
from prepaid_pipeline.errors import DatabaseNotReady, NotAllowed, PrepaidError, SettingError
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.operations.service import guards
from prepaid_pipeline.people import decisions
from prepaid_pipeline.settings.load import Settings, load
from prepaid_pipeline.storage import Store
from tests.desk.many import payments
from tests.faults.recorder import Recorder
from tests.world import TODAY, World, context

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]

SEED = 20261123
PLANS = 30
MEGABYTE = 1 << 20


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A disk of that size, mounted while the block runs. Skips where mounting is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="prepaid-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        # A server that has just ended may still hold it.
        for _ in range(50):
            if subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode:
                time.sleep(0.1)
            else:
                break
        folder.rmdir()


def fill(disk: Path, leave: int) -> Path:
    """Take all of the disk but so many bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - leave))
    return ballast


@pytest.fixture
def on_a_small_disk() -> Iterator[tuple[Path, World]]:
    """A migrated database whose server has its data on a disk of 200 MB."""
    with small_disk(200) as disk:
        home = disk / "home"
        home.mkdir()
        url = embedded.start(home)
        with psycopg.connect(url, autocommit=True) as connection:
            # One segment of the write-ahead log to spare, not five.
            connection.execute("ALTER SYSTEM SET max_wal_size = '32MB'")
            connection.execute("ALTER SYSTEM SET min_wal_size = '32MB'")
            connection.execute("SELECT pg_reload_conf()")
        engine = connections.engine_for(make_url(url))
        migrations.upgrade(engine)
        try:
            yield disk, World(engine)
        finally:
            engine.dispose()
            embedded.stop(home)


def decide(world: World, tasks: list[int]) -> list[int]:
    """Approve one after the other; those that were confirmed to the person."""
    acknowledged: list[int] = []
    for task in tasks:
        with suppress(DBAPIError, NotAllowed):
            decisions.decide(world.engine, "test_officer", [task], "approve", f"note {task}")
            acknowledged.append(task)
    return acknowledged


def go_on(world: World) -> int:
    """What the daemon would do, while it can; how often it could not."""
    failures = 0
    for step in (world.match, world.settle):
        try:
            step()
        except DBAPIError:
            failures += 1
    return failures


def up_again(disk: Path, world: World) -> None:
    """The server as an administrator finds it: still there, or to be started."""
    world.engine.dispose()
    # Three attempts of the product, each of which waits a minute for a server that recovers.
    stop_by = time.monotonic() + 180
    while True:
        try:
            embedded.start(disk / "home")
            with world.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            return
        except (DatabaseNotReady, DBAPIError):
            assert time.monotonic() < stop_by
            time.sleep(0.2)


def wrong(world: World, acknowledged: list[int]) -> list[str]:
    """What is not as it must be, after clean re-runs."""
    stored = {row[0] for row in world.rows("SELECT task_id FROM prepaid.sign_offs")}
    found = [
        f"task {task} was confirmed and is not stored"
        for task in acknowledged
        if task not in stored
    ]
    waiting = "SELECT task_id FROM prepaid.tasks WHERE status = 'Open' AND kind = :kind ORDER BY 1"
    if left := [row[0] for row in world.rows(waiting, kind="payment_verification")]:
        decisions.decide(world.engine, "test_officer", left, "approve", None)
    # Dagster ends the leases of runs that have failed (leases.py); here no Dagster is.
    world.sql(
        "WITH over AS (UPDATE prepaid.batches SET leased_until = clock_timestamp()"
        " WHERE finished_at IS NULL RETURNING 1) SELECT count(*) FROM over"
    )
    for _ in range(2):
        world.match()
        world.settle()
    active = world.sql("SELECT count(*) FROM prepaid.service_plans WHERE status = 'Active'")
    found += [] if active == PLANS else [f"{active} of {PLANS} plans are active"]
    findings = invariants.run(world.engine, context(TODAY))
    found += [finding for check in findings for finding in check.findings]
    seals.seal(world.engine, wait=True)
    return found + [finding.text for finding in seals.verify(world.engine)]


@pytest.mark.parametrize("log_is_full", [False, True], ids=["tables", "write-ahead log"])
def test_under_postgresql(
    on_a_small_disk: tuple[Path, World], record: Recorder, log_is_full: bool
) -> None:
    disk, world = on_a_small_disk
    payments(world, PLANS)
    world.officer()
    tasks = [row[0] for row in world.rows("SELECT task_id FROM prepaid.tasks ORDER BY 1")]
    chance = random.Random(SEED)
    chance.shuffle(tasks)
    found: list[str] = []
    acknowledged: list[int] = []
    refused = failures = 0
    per_point = len(tasks) // 3
    for point, leave in enumerate((0, 64 << 10, 512 << 10)):
        some = tasks[point * per_point : (point + 1) * per_point]
        before = len(acknowledged)
        acknowledged += decide(world, some[:4])
        ballast = fill(disk, leave)
        if log_is_full:
            # The next segment cannot be made: the server itself ends.
            for _ in range(3):
                try:
                    world.sql("SELECT pg_switch_wal()")
                    world.sql("SELECT 1 FROM pg_logical_emit_message(true, 'x', repeat('x', 9000))")
                except DBAPIError:
                    world.engine.dispose()
        acknowledged += decide(world, some[4:])
        failures += go_on(world)
        refused += len(some) - (len(acknowledged) - before)
        ballast.unlink()
        up_again(disk, world)
        stored = {row[0] for row in world.rows("SELECT task_id FROM prepaid.sign_offs")}
        found += [f"task {t} was confirmed and is lost" for t in acknowledged if t not in stored]
    found += wrong(world, acknowledged)
    what = (
        f"disk full under PostgreSQL ({'write-ahead log' if log_is_full else 'tables'}):"
        f" {len(acknowledged)} decisions confirmed, {refused} refused, {failures} runs failed"
    )
    record(fault=7, what=what, points=len(tasks) + 6, violations=len(found), seed=SEED)
    assert found == []
    # Else the disk was not full.
    assert refused + failures > 0


@pytest.mark.smoke
def test_under_the_report_store(world: World, settings: Settings, record: Recorder) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    world.open()
    found: list[str] = []
    with small_disk(2) as disk:
        there = settings.model_copy(update={"reports": str(disk / "reports")})
        store = Store.of(there)
        old, new = b"old" * 1000, b"new" * MEGABYTE
        assert store.write("2026-10/report.html", old)
        ballast = fill(disk, 100 << 10)
        points = 0
        for name in ("2026-10/report.html", "2026-10/report-v1.html", "2026-11/report.html"):
            points += 1
            with pytest.raises(SettingError, match="No space left on device") as failed:
                store.write(name, new)
            assert "are written by the next run" in str(failed.value)
        files = sorted(str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file())
        if files != ["ballast", "reports/2026-10/report.html"]:
            found.append(f"left behind: {files}")
        if store.read("2026-10/report.html") != old:
            found.append("the published report was changed")
        # The daily anchor: its job fails, and the day's file is not there by half.
        ballast.unlink()
        fill(disk, 0)
        points += 1
        with suppress(SettingError):
            anchors.anchor(world.engine, there, TODAY)
            found.append("anchored on a full disk")
        if anchors.stored(there):
            found.append("half an anchor")
        low = load({**_env(there), "PREPAID_FREE_MB": "1"})
        with pytest.raises(PrepaidError, match="The disk of PREPAID_REPORTS"):
            guards.room(low)
        (disk / "ballast").unlink()
        assert anchors.anchor(world.engine, there, TODAY) is not None
        if list(seals.verify(world.engine, anchors.stored(there))):
            found.append("the anchor does not fit")
        small = b"new" * 1000
        assert store.write("2026-10/report.html", small)
        if store.read("2026-10/report.html") != small:
            found.append("not written when there was room again")
    what = "disk full under the report store: reports and the daily anchor"
    record(fault=7, what=what, points=points, violations=len(found))
    assert found == []


def _env(settings: Settings) -> dict[str, str]:
    assert settings.database_url is not None
    return {
        "PREPAID_HOME": str(settings.home),
        "PREPAID_REPORTS": settings.reports,
        "PREPAID_DATABASE_URL": settings.database_url,
    }
