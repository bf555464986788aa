"""`prepaid up` for real: it answers, a second one is refused, and nothing of it is left behind."""

import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster
import pytest

from tests.mail.conftest import free_port
from tests.operations.service.running import STOP_SECONDS, Up, left, started, wait


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with started(tmp_path / "output") as running:
        yield running


@pytest.mark.long
def test_up(up: Up) -> None:
    assert f"http://127.0.0.1:{up.port}" in up.output.read_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{up.port}/health", timeout=10) as page:
        assert page.read() == b"ok\n"
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    asked = urllib.request.Request(
        f"http://127.0.0.1:{up.port}/", headers={"sec-fetch-mode": "navigate"}
    )
    with browser.open(asked, timeout=10) as page:
        assert "<h1>Sign in</h1>" in page.read().decode()
    with browser.open(up.link(), timeout=10) as page:
        assert "/_next/static/" in page.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(up.link(), timeout=10)
    assert up.ask("{ version }") == {"version": dagster.__version__}

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
    assert "'prepaid up' is using it" in down.stderr

    family = up.family()
    commands = " ".join(" ".join(process.cmdline()) for process in family)
    for part in (
        "watchdog",
        "prepaid_pipeline.operations.service.code_server",
        "prepaid_pipeline.operations.dagster_ui.serve",
        "prepaid_pipeline.operations.service.daemon",
        "prepaid_pipeline.desk.serve",
        "postgres",
    ):
        assert part in commands
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(STOP_SECONDS) == 0
    assert left(family) == []
    assert up.output.read_text().endswith("Stopping …\nStopped.\n")


@pytest.mark.long
def test_one_that_dies_is_started_again_and_everything_goes_on(up: Up) -> None:
    family = up.family()
    (daemon,) = (p for p in family if "prepaid_pipeline.operations.service.daemon" in p.cmdline())
    daemon.kill()
    wait(lambda: "The daemon is restarted.\n" in up.output.read_text(), 60)
    assert up.process.poll() is None
    family = up.family()
    (again,) = (p for p in family if "prepaid_pipeline.operations.service.daemon" in p.cmdline())
    assert again.pid != daemon.pid
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(STOP_SECONDS) == 0
    assert left(family) == []
    assert up.output.read_text().endswith("Stopping …\nStopped.\n")


@pytest.mark.long
def test_when_it_is_killed_itself_only_the_database_stays(up: Up) -> None:
    family = up.family()
    processes = [p for p in family if "-m" in p.cmdline()]
    assert len(processes) >= 4
    up.process.kill()
    up.process.wait()
    wait(lambda: not left(processes), STOP_SECONDS)
    assert up.command("down").stdout == "Stopped.\n"
    assert left(family) == []


@pytest.mark.long
def test_a_port_that_is_taken(up: Up) -> None:
    other = up.command("up", PREPAID_HOME=str(up.home.with_name("other")))
    assert other.returncode == 1
    assert f"Port {up.port} cannot be used: Address already in use" in other.stderr
    assert not (up.home.with_name("other") / "postgres" / "postmaster.pid").exists()
