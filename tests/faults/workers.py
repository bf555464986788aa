"""Workers as processes of their own that can really be killed: forked, as a start takes a second.

``python -m tests.faults.workers`` reads one JSON job per line, forks a worker for it, and answers
with its process id; on ``{"wait": PID}`` it answers how that worker ended. It has no threads and no
connections, so that a fork of it is a fresh worker.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

Job = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """``signal``: what killed it, 0 if nothing did. ``struck``: the moment at which the fault was
    made, empty if the work was over before. ``error``: the lost connection, ``said``: its result.
    """

    signal: int
    struck: str = ""
    moments: int = 0
    error: str | None = None
    said: Any = None


class Workers:
    """The process that forks workers, and what to ask it."""

    def __init__(self, log: Path, environ: Mapping[str, str] | None = None, **common: Any) -> None:
        self._common = common
        self._log = log.open("w+")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.workers"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **(environ or {})},
        )

    def warm_up(self) -> None:
        """Let it do everything once; what it has loaded and compiled, its forks have."""
        self._ask(self._common | {"work": "warm_up"})

    def start(self, **job: Any) -> int:
        """Start a worker; its process id."""
        return int(self._ask(self._common | job))

    def wait(self, pid: int) -> Ended:
        """How a worker ended. Fails if it broke by itself."""
        answer = self._ask({"wait": pid})
        status, said = answer["status"], answer["said"]
        if os.WIFSIGNALED(status):
            return Ended(os.WTERMSIG(status))
        assert os.WEXITSTATUS(status) == 0, self.log()
        return Ended(0, **said)

    def run(self, **job: Any) -> Ended:
        return self.wait(self.start(**job))

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)
        assert self._server.stdout is not None
        self._server.stdout.close()
        self._log.close()

    def _ask(self, request: Job) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, self.log()
        return json.loads(answer)


def serve() -> None:
    """Fork a worker per line, until there are no more."""
    from tests.faults import work

    results: dict[int, int] = {}
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer: Any = _ended(job["wait"], results.pop(job["wait"]))
        elif job.get("work") == "warm_up":
            work.warm_up(job)
            answer = 0
        else:
            reading, writing = os.pipe()
            answer = os.fork()
            if answer == 0:
                _work(work.do, job, writing)
            os.close(writing)
            results[answer] = reading
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _work(do: Any, job: Job, writing: int) -> None:
    code = 1
    try:
        os.write(writing, json.dumps(do(job)).encode())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _ended(pid: int, reading: int) -> Job:
    with os.fdopen(reading) as result:
        said = result.read()
    return {"status": os.waitpid(pid, 0)[1], "said": json.loads(said) if said else None}


if __name__ == "__main__":
    serve()
