"""`prepaid up` for real: it answers, a second one is refused, and nothing of it is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.email.conftest import free_port

PREPAID = Path(sys.executable).with_name("prepaid")
_START_SECONDS, _STOP_SECONDS = 90.0, 20.0


@dataclass
class Up:
    """A running `prepaid up` with its embedded server."""

    process: subprocess.Popen[str]
    output: Path
    home: Path
    port: int
    environ: dict[str, str]

    def command(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PREPAID, *arguments],
            env={**self.environ, **changes}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def family(self) -> list[psutil.Process]:
        """Its processes and the database server."""
        server = int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])
        return [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(server)]


def _left(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that only waits for its parent to take note does not."""
    return [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def _wait(ready: Callable[[], bool], seconds: float) -> float:
    started = time.monotonic()
    while not ready():
        assert time.monotonic() - started < seconds
        time.sleep(0.1)
    return time.monotonic() - started


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    # Not in pytest's own directory: tests/conftest.py says why.
    root = Path(tempfile.mkdtemp(prefix="prepaid-up-"))
    port, home, output = free_port(), root / "home", tmp_path / "output"
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREPAID_")},
        "PREPAID_HOME": str(home), "PREPAID_PORT": str(port), "PYTHONUNBUFFERED": "1",
        "PREPAID_DESK_PORT": str(free_port()),
    }  # fmt: skip
    with output.open("w") as file:
        process = subprocess.Popen(
            [PREPAID, "up"],
            env=environ, stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
    running = Up(process, output, home, port, environ)
    try:
        _wait(lambda: "Stop with Ctrl-C" in output.read_text() or process.poll() is not None,
              _START_SECONDS)  # fmt: skip
        assert process.poll() is None, output.read_text()
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)
        running.command("down")
        shutil.rmtree(root)


def test_up(up: Up) -> None:
    assert f"http://127.0.0.1:{up.port}" in up.output.read_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{up.port}/", timeout=10) as page:
        assert "Dagster" in page.read().decode()

    desk = f"http://127.0.0.1:{up.environ['PREPAID_DESK_PORT']}"
    assert f"Sign-off desk: {desk}\n" in up.output.read_text()
    with urllib.request.urlopen(f"{desk}/", timeout=10) as page:
        assert "<h1>Sign in</h1>" in page.read().decode()

    second = up.command("up", PREPAID_PORT=str(free_port()))
    assert second.returncode == 1
    assert "runs on this database already (prepaid up on" in second.stderr
    assert f"process {up.process.pid}, port {up.port}" in second.stderr
    down = up.command("down")
    assert down.returncode == 1
    assert "'prepaid up' works on it" in down.stderr

    family = up.family()
    commands = " ".join(" ".join(process.cmdline()) for process in family)
    for part in (
        "watchdog",
        "dagster api grpc",
        "dagster_webserver",
        "dagster._daemon",
        "prepaid_pipeline.desk.serve",
        "postgres",
    ):
        assert part in commands
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(_STOP_SECONDS) == 0
    assert _left(family) == []
    assert up.output.read_text().endswith("Stopping …\nStopped.\n")


@pytest.mark.long
def test_one_that_dies_takes_all_with_it(up: Up) -> None:
    family = up.family()
    (daemon,) = (process for process in family if "dagster._daemon" in process.cmdline())
    daemon.kill()
    assert up.process.wait(_STOP_SECONDS) == 1
    assert _left(family) == []
    assert "The daemon has ended by itself (killed by SIGKILL)" in up.output.read_text()


@pytest.mark.long
def test_when_it_is_killed_itself_only_the_database_stays(up: Up) -> None:
    family = up.family()
    processes = [p for p in family if "dagster" in " ".join(p.cmdline())]
    assert len(processes) >= 3
    up.process.kill()
    up.process.wait()
    _wait(lambda: not _left(processes), _STOP_SECONDS)
    assert up.command("down").stdout == "Stopped.\n"
    assert _left(family) == []


@pytest.mark.long
def test_a_port_that_is_taken(up: Up) -> None:
    other = up.command("up", PREPAID_HOME=str(up.home.with_name("other")))
    assert other.returncode == 1
    assert f"Port {up.port} cannot be used: Address already in use" in other.stderr
    assert not (up.home.with_name("other") / "postgres" / "postmaster.pid").exists()
