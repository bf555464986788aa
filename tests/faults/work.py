"""What a worker can be asked to do: the very functions that the jobs and ``prepaid drain`` call."""

import io
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.billing import payment_matching
from prepaid_pipeline.cli import main
from prepaid_pipeline.context import Context
from prepaid_pipeline.database import connections
from prepaid_pipeline.mail.sender import send_emails
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import drain, steps
from prepaid_pipeline.settings.load import Settings, load
from tests.faults.moments import Moments, strike_of
from tests.world import TODAY, context

Job = dict[str, Any]


@cache
def _engine(url: str) -> Engine:
    return connections.engine_for(make_url(url))


def warm_up(job: Job) -> None:
    """Everything once with nothing to do, so that a fork need not load and compile it again."""
    engine, settings = _engine(job["url"]), settings_of(job)
    for step in steps.STEPS:
        steps.run_step(engine, step, 0, context())
    for work in (_open, _match, _quality, _drain):
        work(engine, settings, job)
    engine.dispose()


def settings_of(job: Job) -> Settings:
    environ = {"PREPAID_HOME": job["home"], "PREPAID_DATABASE_URL": job["url"]}
    return load(environ | ({"PREPAID_SMTP_URL": job["smtp"]} if job.get("smtp") else {}))


def do(job: Job) -> Job:
    """Do one job up to its fatal moment; how it ended, unless this process is killed."""
    engine = _engine(job["url"])
    engine.connect().close()
    moments = Moments(engine, job.get("point"), strike_of(job))
    error = said = None
    try:
        said = _WORK[job["work"]](engine, settings_of(job), job)
        moments.pass_by("the end")
    except DBAPIError as lost:
        if not is_lost(lost):
            raise
        error = type(lost).__name__
    return {"struck": moments.struck, "moments": moments.count, "error": error, "said": said}


def is_lost(error: DBAPIError) -> bool:
    """The session or the server is gone: no answer at all, or 08… and 57P… (being shut down)."""
    return connections.sqlstate(error).startswith(("08", "57P")) or not connections.sqlstate(error)


def _open(engine: Engine, _: Settings, job: Job) -> int:
    return steps.open_service_plans(engine, context())


def _claim(engine: Engine, _: Settings, job: Job) -> int | None:
    return steps.claim(engine, job["queue"], context(batch_size=job["size"]))


def _step(engine: Engine, _: Settings, job: Job) -> int:
    return steps.run_step(engine, job["step"], job["batch"], context()).finished


def _match(engine: Engine, _: Settings, job: Job) -> dict[str, int]:
    return payment_matching.match_payments(engine, context())


def _decide(engine: Engine, _: Settings, job: Job) -> int:
    return decisions.decide(engine, job["person"], job["tasks"], job["word"], None)


def _quality(engine: Engine, _: Settings, job: Job) -> dict[str, int]:
    return steps.close_quality_checks(engine, context())


def _mail(engine: Engine, settings: Settings, job: Job) -> int:
    return send_emails(engine, settings, as_of=TODAY, limit=job["size"]).sent


def _drain(engine: Engine, settings: Settings, job: Job) -> int:
    return drain.drain(engine, settings, context()).settled


def _until_told(job: Job, work: Callable[[Context], object]) -> Job:
    """Again and again, as the daemon's runs do, until there is a file that says to stop.

    Lost connections and deadlocks end a run, and the next one begins; how many of each there were.
    """
    ended = {"lost": 0, "deadlocks": 0}
    at = context(batch_size=job["size"], lease_seconds=job["lease"])
    while not Path(job["stop"]).exists():
        try:
            work(at)
        except DBAPIError as error:
            if connections.sqlstate(error) == "40P01":
                ended["deadlocks"] += 1
            elif is_lost(error):
                ended["lost"] += 1
            else:
                raise
        time.sleep(random.uniform(0.05, 0.4))  # or those that find nothing take all the time
    return ended


def _daemon(engine: Engine, settings: Settings, job: Job) -> Job:
    return _until_told(job, lambda at: drain.drain(engine, settings, at))


def _worker(engine: Engine, _: Settings, job: Job) -> Job:
    def work(at: Context) -> None:
        for queue in steps.QUEUES:
            for batch in steps.claim_all(engine, queue, at):
                steps.run_batch(engine, queue, batch, at)

    return _until_told(job, work)


def _sender(engine: Engine, settings: Settings, job: Job) -> Job:
    return _until_told(job, lambda at: send_emails(engine, settings, as_of=at.as_of))


def _command(_: Engine, __: Settings, job: Job) -> Job:
    """A command as a user types it: its exit code and all that it says."""
    os.environ.update(job["environ"])
    said, code = io.StringIO(), 0
    with redirect_stdout(said), redirect_stderr(said):
        try:
            sys.argv = ["prepaid", *job["arguments"]]
            main.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return {"code": code, "output": said.getvalue()}


_WORK: dict[str, Callable[[Engine, Settings, Job], Any]] = {
    "open": _open,
    "claim": _claim,
    "step": _step,
    "match": _match,
    "decide": _decide,
    "quality": _quality,
    "mail": _mail,
    "drain": _drain,
    "daemon": _daemon,
    "worker": _worker,
    "sender": _sender,
    "command": _command,
}
