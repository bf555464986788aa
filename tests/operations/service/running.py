"""A real `prepaid up`, with an embedded server and an installation of its own."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.mail.conftest import free_port

PREPAID = Path(sys.executable).with_name("prepaid")
START_SECONDS, STOP_SECONDS = 180.0, 20.0


@dataclass
class Up:
    """A running `prepaid up` with its embedded server."""

    process: subprocess.Popen[str]
    output: Path
    home: Path
    port: int
    environ: dict[str, str]

    def command(
        self, *arguments: str, typed: str | None = None, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PREPAID, *arguments],
            env={**self.environ, **changes},
            capture_output=True,
            text=True,
            timeout=300,
            input=typed,
            check=False,
        )

    def ask(self, query: str) -> Any:
        """What Dagster answers to a query (GraphQL), asked as programs do, with the token."""
        sent = {
            "content-type": "application/json",
            "authorization": f"Bearer {self.environ['PREPAID_UI_TOKEN']}",
        }
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", json.dumps({"query": query}).encode(), sent
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)["data"]

    def link(self) -> str:
        """The one-time sign-in link that it has printed."""
        found = re.search(r"this link signs you in to it, once: (\S+)", self.output.read_text())
        assert found is not None, self.output.read_text()
        return found[1]

    def family(self) -> list[psutil.Process]:
        """Its processes and the database server."""
        server = int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])
        return [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(server)]


def left(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that only waits for its parent to take note does not."""
    return [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def wait(ready: Callable[[], bool], seconds: float) -> float:
    started = time.monotonic()
    while not ready():
        assert time.monotonic() - started < seconds
        time.sleep(0.1)
    return time.monotonic() - started


@contextmanager
def started(output: Path, **settings: str) -> Iterator[Up]:
    """One that has started; what it prints goes to ``output``.

    Keyword arguments are settings: ``log_format="json"`` is PREPAID_LOG_FORMAT=json.
    """
    # Not in pytest's own directory: tests/conftest.py says why.
    root = Path(tempfile.mkdtemp(prefix="prepaid-up-"))
    port, home = free_port(), root / "home"
    environ = {
        **os.environ,
        "PREPAID_HOME": str(home),
        "PREPAID_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        "PREPAID_DESK_PORT": str(free_port()),
        "PREPAID_UI_TOKEN": secrets.token_hex(32),
        **{f"PREPAID_{name.upper()}": value for name, value in settings.items()},
    }
    with output.open("w") as file:
        process = subprocess.Popen(
            [PREPAID, "up"],
            env=environ,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    running = Up(process, output, home, port, environ)
    try:
        wait(
            lambda: "Stop with Ctrl-C" in output.read_text() or process.poll() is not None,
            START_SECONDS,
        )
        assert process.poll() is None, output.read_text()
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
        running.command("down")
        shutil.rmtree(root)
