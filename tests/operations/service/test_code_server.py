"""The code server's watch over its runs outlives a database that is away for a moment."""

import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.server import DagsterApiServer

from prepaid_pipeline.operations.service import code_server
from tests.operations.service.running import wait


@dg.job
def nothing() -> None: ...


def test_the_watch_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def look(self: Any) -> None:
        looks.append(time.monotonic())
        if len(looks) < 3:
            raise ConnectionError("the database is away")

    monkeypatch.setattr(DagsterApiServer, "_check_for_orphaned_runs", look)
    code_server.watch_runs()
    ended = threading.Event()
    # Dagster's own loop, on a server that has nothing else.
    server: Any = SimpleNamespace(_server_termination_event=ended)
    server._check_for_orphaned_runs = lambda: DagsterApiServer._check_for_orphaned_runs(server)
    watch = threading.Thread(target=DagsterApiServer._cleanup_thread, args=(server,), daemon=True)
    watch.start()
    wait(lambda: len(looks) >= 4, 30)
    ended.set()
    watch.join(10)
    assert not watch.is_alive()


def test_lost_runs_are_closed(tmp_path: Any) -> None:
    with dg.DagsterInstance.ephemeral() as instance:

        def run(socket: str | None, status: dg.DagsterRunStatus) -> str:
            tags = {} if socket is None else {GRPC_INFO_TAG: json.dumps({"socket": socket})}
            return instance.create_run_for_job(nothing, status=status, tags=tags).run_id

        ours = run("/a/code.sock", dg.DagsterRunStatus.STARTED)
        theirs = run("/b/code.sock", dg.DagsterRunStatus.STARTED)
        waits = run(None, dg.DagsterRunStatus.NOT_STARTED)
        done = run("/a/code.sock", dg.DagsterRunStatus.SUCCESS)
        assert code_server.close_lost_runs(instance, "/a/code.sock") == 1

        def statuses() -> list[str]:
            found = (instance.get_run_by_id(r) for r in (ours, theirs, waits, done))
            return [r.status.value for r in found if r is not None]

        assert statuses() == ["FAILURE", "STARTED", "NOT_STARTED", "SUCCESS"]
        assert code_server.close_lost_runs(instance) == 1
        assert statuses() == ["FAILURE", "FAILURE", "NOT_STARTED", "SUCCESS"]
