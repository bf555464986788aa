"""Processes that run together: one that dies is restarted, all end when their parent does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from prepaid_pipeline import private
from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.operations.service.watchdog import send

# From the request to stop until a process is killed; together they stay below 20 s.
STOP_SECONDS = 7.0
# A process that dies soon after its start is restarted after 0.5, 1, 2 … 15 s, eight times.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0
_LIVED_SECONDS = 60.0
_MOST_RESTARTS = 8
_TAIL_LINES = 15


class ProcessEnded(PrepaidError):  # noqa: N818
    """One of the processes ended unexpectedly."""


class StopRequest:
    """True once the user (Ctrl-C) or the system (SIGTERM, the terminal's end) asks to stop."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.requested = True


@dataclass
class _Child:
    arguments: Sequence[str]
    process: subprocess.Popen[bytes]
    started: float
    # Since it last lived for a minute.
    deaths: int = 0
    # When it is restarted; None while it runs.
    due: float | None = None


class Supervisor:
    """Starts processes, each in a process group of its own, keeps them running, and ends them all.

    Ctrl-C in a terminal reaches only this process, which then ends the others in its own order. A
    watchdog ends them if this process is killed.
    """

    def __init__(self, directory: Path, logs: Path, environ: Mapping[str, str]) -> None:
        private.make_directory(logs)
        self._logs = logs
        self._directory = directory
        self._environ = {**os.environ, **environ, "PYTHONUNBUFFERED": "1"}
        self._children: dict[str, _Child] = {}
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "prepaid_pipeline.operations.service.watchdog"],
            stdin=subprocess.PIPE,
            cwd=directory,
            start_new_session=True,
        )

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start ``python -m …``; its output goes to a log file, that of the time before stays."""
        path = self.log(name)
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
        self._children[name] = _Child(arguments, self._launch(name, arguments), time.monotonic())

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self._logs / f"{name}.log"

    def check(self) -> None:
        """Raise ProcessEnded, with the last lines of its log, if a process has ended."""
        self._check_watchdog()
        for name, child in self._children.items():
            if (code := child.process.poll()) is not None:
                raise ProcessEnded(self._last_words(name, code))

    def tend(self, may_start: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Start again what has ended, after a pause and as soon as ``may_start``.

        Raises ProcessEnded, with the last lines of its log, for one that ends again and again.
        """
        self._check_watchdog()
        now = time.monotonic()
        for name, child in self._children.items():
            if child.due is None and (code := child.process.poll()) is not None:
                self._note_death(name, child, code, now, say)
            if child.due is not None and now >= child.due and may_start():
                child.process, child.started = self._launch(name, child.arguments), now
                child.due = None
                say(f"The {name} is restarted.")

    def stop(self) -> None:
        """End all processes and what they started; returns when all are gone.

        The first one that was started is asked last: the others use it.
        """
        if self._watchdog.stdin is None or self._watchdog.stdin.closed:
            return  # stopped before
        processes = [child.process for child in self._children.values()]
        for asked in (processes[1:], processes[:1]):
            for process in asked:
                send(process.pid, signal.SIGINT)
            _wait(asked)
        for process in processes:
            # What a process left behind (a run's worker) is still in its group.
            send(process.pid, signal.SIGKILL)
            process.wait()
        self._tell_watchdog("done")
        with suppress(BrokenPipeError):  # the watchdog was the one that ended
            self._watchdog.stdin.close()
        self._watchdog.wait()

    def _launch(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=self._environ,
                start_new_session=True,
            )
        self._tell_watchdog(str(process.pid))
        return process

    def _note_death(
        self, name: str, child: _Child, code: int, now: float, say: Callable[[str], None]
    ) -> None:
        # The runs of a code server: nobody would note their end.
        send(child.process.pid, signal.SIGKILL)
        self._tell_watchdog(f"-{child.process.pid}")
        child.deaths = 1 if now - child.started > _LIVED_SECONDS else child.deaths + 1
        if child.deaths > _MOST_RESTARTS:
            raise ProcessEnded(self._last_words(name, code))
        child.due = now + min(_FIRST_WAIT * 2 ** (child.deaths - 1), _LONGEST_WAIT)
        say(f"The {name} has ended unexpectedly ({_ending(code)}); its log: {self.log(name)}")

    def _last_words(self, name: str, code: int) -> str:
        lines = self.log(name).read_text(encoding="utf-8", errors="replace").splitlines()
        return (
            f"The {name} has ended unexpectedly ({_ending(code)}). Stopping everything."
            f" The end of {self.log(name)}:\n" + "\n".join(lines[-_TAIL_LINES:])
        )

    def _check_watchdog(self) -> None:
        if self._watchdog.poll() is not None:
            raise ProcessEnded("The watchdog has ended: stopping.")

    def _tell_watchdog(self, line: str) -> None:
        assert self._watchdog.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: _check_watchdog says so
            self._watchdog.stdin.write(f"{line}\n".encode())
            self._watchdog.stdin.flush()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    stop_by = time.monotonic() + STOP_SECONDS
    while time.monotonic() < stop_by and any(process.poll() is None for process in processes):
        time.sleep(0.05)


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
