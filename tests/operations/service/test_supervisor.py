"""One process that dies is started again; one that cannot live ends everything, with its words."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from prepaid_pipeline.operations.service import supervisor as module
from prepaid_pipeline.operations.service.supervisor import ProcessEnded, Supervisor
from tests.operations.service.running import left, wait

# A process of a few milliseconds' start that has a child, as a code server has a run's worker.
_PARENT = """
import pathlib, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
pathlib.Path(f"{sys.argv[1]}.new").write_text(str(child.pid))
pathlib.Path(f"{sys.argv[1]}.new").rename(sys.argv[1])
time.sleep(60)
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    (tmp_path / "parent.py").write_text(_PARENT)
    (tmp_path / "broken.py").write_text("raise SystemExit('cannot find its socket')")
    started = Supervisor(tmp_path, tmp_path / "log", {})
    yield started
    started.stop()


def tended(
    supervisor: Supervisor, until: Callable[[], bool], may_start: Callable[[], bool] = lambda: True
) -> list[str]:
    said: list[str] = []
    stop_by = time.monotonic() + 30
    while not until():
        supervisor.tend(may_start, said.append)
        assert time.monotonic() < stop_by, said
        time.sleep(0.02)
    return said


def test_what_dies_is_started_again_and_leaves_nothing(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    note = tmp_path / "child"
    supervisor.start("worker", ["parent", str(note)])
    wait(note.exists, 20)
    child = psutil.Process(int(note.read_text()))
    parent = child.parent()
    assert parent is not None
    note.unlink()
    parent.kill()
    said = tended(supervisor, note.exists)
    assert left([child]) == []
    assert said == [
        f"The worker has ended unexpectedly (killed by SIGKILL); its log: {supervisor.log('worker')}",
        "The worker is restarted.",
    ]
    again = psutil.Process(int(note.read_text()))
    supervisor.stop()
    assert left([again]) == []


def test_it_waits_for_the_database(supervisor: Supervisor, tmp_path: Path) -> None:
    note = tmp_path / "child"
    supervisor.start("worker", ["parent", str(note)])
    wait(note.exists, 20)
    parent = psutil.Process(int(note.read_text())).parent()
    assert parent is not None
    note.unlink()
    parent.kill()
    until = time.monotonic() + 2
    tended(supervisor, lambda: time.monotonic() > until, may_start=lambda: False)
    assert not note.exists()
    tended(supervisor, note.exists)


def test_one_that_cannot_live_ends_everything(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(module, "_LONGEST_WAIT", 0.05)
    supervisor.start("worker", ["broken"])
    with pytest.raises(ProcessEnded, match=r"\(exit code 1\). Stopping everything") as ended:
        tended(supervisor, lambda: False)
    assert str(ended.value).count("cannot find its socket") == 9


def test_the_watchdog_forgets_what_has_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    """Its number may be somebody else's by then."""
    note = tmp_path / "child"
    supervisor.start("worker", ["parent", str(note)])
    wait(note.exists, 20)
    parent = psutil.Process(int(note.read_text())).parent()
    assert parent is not None
    written: list[str] = []
    supervisor._tell_watchdog = written.append  # type: ignore[method-assign]
    os.kill(parent.pid, signal.SIGKILL)
    note.unlink()
    tended(supervisor, note.exists)
    restarted = psutil.Process(int(note.read_text())).parent()
    assert restarted is not None
    assert written == [f"-{parent.pid}", str(restarted.pid)]
    Supervisor._tell_watchdog(supervisor, f"-{parent.pid}")
    Supervisor._tell_watchdog(supervisor, str(restarted.pid))
