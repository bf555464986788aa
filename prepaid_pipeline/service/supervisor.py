"""Processes that live and die together: all end when one does, or when their parent does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.service.watchdog import send

# From the request to stop until a process is killed; together they stay below 20 s.
STOP_SECONDS = 7.0
_TAIL_LINES = 15


class ProcessEnded(PrepaidError):  # noqa: N818
    """One of the processes ended by itself."""


class StopRequest:
    """True once the user (Ctrl-C) or the system (SIGTERM, the terminal's end) asks to stop."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.requested = True


class Supervisor:
    """Starts processes, each in a process group of its own, and ends them all.

    Ctrl-C in a terminal reaches only this process, which then ends the others in its own order. A
    watchdog ends them if this process is killed.
    """

    def __init__(self, logs: Path, directory: Path, environ: Mapping[str, str]) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._directory = directory
        self._environ = {**os.environ, **environ, "PYTHONUNBUFFERED": "1"}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "prepaid_pipeline.service.watchdog"],
            stdin=subprocess.PIPE, cwd=directory, start_new_session=True,
        )  # fmt: skip

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start ``python -m …``; its output goes to a log file, that of the time before stays."""
        log = self.log(name)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                cwd=self._directory, env=self._environ, start_new_session=True,
            )  # fmt: skip
        self._processes[name] = process
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{process.pid}\n".encode())
        self._watchdog.stdin.flush()

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self._logs / f"{name}.log"

    def check(self) -> None:
        """Raise ProcessEnded, with the last lines of its log, if a process has ended."""
        if self._watchdog.poll() is not None:
            raise ProcessEnded("The watchdog has ended: stopping.")
        for name, process in self._processes.items():
            if (code := process.poll()) is not None:
                log = self.log(name)
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                raise ProcessEnded(
                    f"The {name} has ended by itself ({_ending(code)}). Stopping everything."
                    f" The end of {log}:\n" + "\n".join(lines[-_TAIL_LINES:])
                )

    def stop(self) -> None:
        """End all processes and what they started; returns when all are gone.

        The first one that was started is asked last: the others use it.
        """
        processes = list(self._processes.values())
        for asked in (processes[1:], processes[:1]):
            for process in asked:
                send(process.pid, signal.SIGINT)
            _wait(asked)
        for process in processes:
            # What a process left behind (a run's worker) is still in its group.
            send(process.pid, signal.SIGKILL)
            process.wait()
        assert self._watchdog.stdin is not None
        try:
            self._watchdog.stdin.write(b"done\n")
            self._watchdog.stdin.close()
        except BrokenPipeError:
            pass  # the watchdog was the one that ended
        self._watchdog.wait()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    stop_by = time.monotonic() + STOP_SECONDS
    while time.monotonic() < stop_by and any(process.poll() is None for process in processes):
        time.sleep(0.05)


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
