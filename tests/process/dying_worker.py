"""A worker that kills itself: ``dying_worker.py URL QUEUE STEP before-commit|after-commit``."""

import os
import signal
import sys
from typing import Any

from sqlalchemy import event, make_url

from prepaid_pipeline import database, process
from tests.world import context


def main(url: str, queue: str, step: str, moment: str) -> None:
    """Take a batch through its steps up to the fatal one."""
    engine = database.engine_for(make_url(url))
    at = context()
    process.open_service_plans(engine, at)
    batch = process.claim(engine, queue, at)
    assert batch is not None

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    for name in process.QUEUES[queue]:
        if name == step and moment == "before-commit":
            event.listen(engine, "commit", die)
        process.run_step(engine, name, batch, at)
        if name == step:
            die()


if __name__ == "__main__":
    main(*sys.argv[1:])
