"""The systemd units of deploy/: what they start answers.

There is no systemd to start them here: systemd reads them (``systemd-analyze verify``), and a test
starts their command lines itself, in their order and with their environment file.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from sqlalchemy import make_url

from prepaid_pipeline.database import connections, embedded
from prepaid_pipeline.operations.service.lock import DAEMON, holder
from tests.mail.conftest import free_port
from tests.operations.service.conftest import Command
from tests.operations.service.running import PREPAID, wait

DEPLOY = Path(__file__).parents[3] / "deploy"
INSTALLED = "/opt/prepaid/.venv/bin/prepaid"
UNITS = sorted(path.name for path in DEPLOY.glob("*.service"))


def unit(name: str) -> ConfigParser:
    found = ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(DEPLOY / name)
    return found


def order() -> list[str]:
    """The units so that each comes behind those that it is to start after."""
    return sorted(UNITS, key=lambda name: len(re.findall("prepaid-", unit(name)["Unit"]["After"])))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not there")
def test_systemd_accepts_them(tmp_path: Path) -> None:
    for path in DEPLOY.iterdir():
        content = path.read_text().replace(INSTALLED, str(PREPAID))
        content = content.replace("/etc/prepaid.env", str(DEPLOY / "prepaid.env"))
        (tmp_path / path.name).write_text(content)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in verified.stderr.splitlines() if "prepaid" in line]
    assert (verified.returncode, ours) == (0, [])


def test_the_desk_and_every_part_has_a_unit() -> None:
    commands = {unit(name)["Service"]["ExecStart"] for name in UNITS}
    parts = ("code-server", "daemon", "webserver", "metrics")
    assert commands == {f"{INSTALLED} desk", *(f"{INSTALLED} serve {part}" for part in parts)}
    for name in UNITS:
        service = unit(name)["Service"]
        assert service["Restart"] == "always"
        assert service["NoNewPrivileges"] == "yes"
        assert unit(name)["Install"]["WantedBy"] == "prepaid.target"


@pytest.mark.parametrize(
    ("part", "env", "said"),
    [
        ("daemon", {"database_url": ""}, "PREPAID_DATABASE_URL is not set"),
        ("metrics", {}, "PREPAID_METRICS_PORT is not set"),
        ("read-only", {}, "There is no read-only webserver any more: 'prepaid serve webserver'"),
        ("webserver", {"read_only_port": "3002"}, "PREPAID_READ_ONLY_PORT is no longer a setting"),
    ],
)
def test_what_is_missing_is_named(
    prepaid: Command,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    env: dict[str, str],
    said: str,
) -> None:
    from prepaid_pipeline.operations.service import serve

    monkeypatch.setattr(serve.guards, "require_safe", lambda *_: None)
    code, _, errors = prepaid("serve", part, **env)
    assert code == 1
    assert errors.startswith(f"prepaid: {said}")


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """What the environment file says, but for the machine's own: home, database and ports."""
    root = Path(tempfile.mkdtemp(prefix="prepaid-units-"))
    lines = (DEPLOY / "prepaid.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    ports = {name: str(free_port()) for name in given if name.endswith("_PORT")}
    yield {
        **given,
        **ports,
        "PREPAID_HOME": str(root / "home"),
        "PATH": "/usr/bin:/bin",
        # A server of its own: the units refuse one that does not flush, as the tests' may be.
        "PREPAID_DATABASE_URL": embedded.start(root),
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
    }
    embedded.stop(root)
    shutil.rmtree(root)


@pytest.mark.long
def test_what_they_start_answers(environ: dict[str, str], tmp_path: Path) -> None:
    engine = connections.engine_for(make_url(environ["PREPAID_DATABASE_URL"]))

    def page(setting: str, path: str) -> str:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{environ[setting]}{path}", timeout=10
        ) as got:
            return str(got.read().decode())

    def listens(setting: str) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", int(environ[setting]))) == 0

    def code_server() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(f"{environ['PREPAID_HOME']}/dagster/code.sock") == 0

    answers = {
        "prepaid-code-server.service": code_server,
        "prepaid-daemon.service": lambda: holder(engine, DAEMON) is not None,
        "prepaid-webserver.service": lambda: listens("PREPAID_PORT"),
        "prepaid-desk.service": lambda: listens("PREPAID_DESK_PORT"),
        "prepaid-metrics.service": lambda: listens("PREPAID_METRICS_PORT"),
    }
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in order():
            service = unit(name)["Service"]
            for key in ("ExecStartPre", "ExecStart"):
                if key not in service:
                    continue
                command = service[key].replace(INSTALLED, str(PREPAID)).split()
                with (tmp_path / name).open("ab") as log:
                    process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
                if key == "ExecStartPre":
                    assert process.wait(60) == 0, (tmp_path / name).read_text()
            started[name] = process
            wait(lambda name=name: answers[name]() or started[name].poll() is not None, 90)  # type: ignore[misc]
            assert started[name].poll() is None, (tmp_path / name).read_text()
        assert page("PREPAID_PORT", "/health") == "ok\n"
        assert "<h1>Sign in</h1>" in page("PREPAID_PORT", "/sign-in")
        assert "<h1>Sign in</h1>" in page("PREPAID_DESK_PORT", "/")
        assert "prepaid_database_up 1.0" in page("PREPAID_METRICS_PORT", "/metrics")
    finally:
        for process in reversed(started.values()):
            process.send_signal(signal.SIGINT)
        ends = {name: process.wait(20) for name, process in started.items()}
    engine.dispose()
    # systemd takes the end by its own signal for success.
    assert set(ends.values()) <= {0, -signal.SIGINT}
