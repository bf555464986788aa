"""Metrics in Prometheus' text format: what waits, what is stuck, how the jobs do, and since when.

Read from the database (and of the report store its newest anchor) at each look, so that they are
the same whoever asks and whatever was started again. No personal data of customers: labels are
statuses, kinds, reasons, names of jobs, and the login whose open transaction blocks the pipeline.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline import logs
from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.database import queries, waits
from prepaid_pipeline.settings.load import Settings

HOST = "127.0.0.1"
_SQL = "operations/service/metrics"
# Of a look: a report store that does not answer must not take the other metrics with it.
_STORE_SECONDS = 3.0

log = logging.getLogger(__name__)

# Whether the report store has answered, and the newest anchor that it has.
_Anchored = tuple[bool, anchors.Latest | None]


class DatabaseCollector(Collector):
    """All metrics, read in one transaction; without a database only that it is not there."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: else a registry would read everything once to learn the names."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Called by the registry at each look."""
        started = time.monotonic()
        try:
            # Before the transaction, which a slow store is not to keep open.
            anchored = _latest_anchor(self._settings)
            with self._engine.connect() as connection:
                found = list(_all(connection, anchored, self._settings))
        except DBAPIError as error:
            logs.event(log, "metrics cannot be read", logging.ERROR, error=type(error).__name__)
            found = []
        up = "Whether the database answered: 1 or 0."
        seconds = "How long the last scrape took."
        yield _one("prepaid_database_up", up, 1 if found else 0)
        yield _one("prepaid_scrape_seconds", seconds, time.monotonic() - started)
        yield from found


def registry(engine: Engine, settings: Settings) -> CollectorRegistry:
    """A registry of our own metrics alone; making it reads nothing."""
    found = CollectorRegistry()
    found.register(DatabaseCollector(engine, settings))
    return found


def text(engine: Engine, settings: Settings) -> str:
    """All metrics in Prometheus' text format."""
    return generate_latest(registry(engine, settings)).decode()


def serve(engine: Engine, settings: Settings, port: int) -> Any:
    """Serve /metrics on 127.0.0.1 in a thread; the server, which has ``shutdown()``."""
    server, _ = start_http_server(port, HOST, registry(engine, settings))
    return server


def _all(
    connection: Connection, anchored: _Anchored, settings: Settings
) -> Iterator[GaugeMetricFamily]:
    yield from _of_plans(connection)
    yield from _of_work(connection)
    yield _of_waits(connection, settings)
    if queries.statement(_SQL, "has_runs").execute(connection, {}).scalar():
        yield from _of_dagster(connection)
    yield from _of_audit(connection, anchored)


def _of_plans(connection: Connection) -> Iterator[GaugeMetricFamily]:
    plans = _many("prepaid_plans", "Service plans by status.", "status")
    for row in _rows(connection, "plans"):
        plans.add_metric([row.status], row.plans)
    held = _many("prepaid_held_plans", "Live holds by reason.", "reason")
    for row in _rows(connection, "holds"):
        held.add_metric([row.reason_code], row.plans)
    yield from (plans, held)
    (unsettled,) = _rows(connection, "unsettled")
    said = "Plans that are neither finished nor held."
    yield _one("prepaid_unsettled_plans", said, unsettled.plans)
    said = "How long ago the oldest of them was opened."
    yield _one("prepaid_unsettled_oldest_seconds", said, unsettled.oldest_seconds)


def _of_work(connection: Connection) -> Iterator[GaugeMetricFamily]:
    tasks = _many("prepaid_open_tasks", "Tasks that wait for a person.", "kind")
    oldest_task = _many("prepaid_open_task_oldest_seconds", "Age of the oldest of them.", "kind")
    for row in _rows(connection, "tasks"):
        tasks.add_metric([row.kind], row.tasks)
        oldest_task.add_metric([row.kind], row.oldest_seconds)
    mails = _many("prepaid_mails", "Emails that have not been sent, by status.", "status")
    oldest_mail = _many("prepaid_mail_oldest_seconds", "Age of the oldest of them.", "status")
    for row in _rows(connection, "mails"):
        mails.add_metric([row.status], row.mails)
        oldest_mail.add_metric([row.status], row.oldest_seconds)
    yield from (tasks, oldest_task, mails, oldest_mail)
    (batches,) = _rows(connection, "batches")
    yield _one("prepaid_unfinished_batches", "Batches that are not finished.", batches.batches)
    said = "Unfinished batches whose lease has run out: the next run takes them."
    yield _one("prepaid_abandoned_batches", said, batches.abandoned)


def _of_waits(connection: Connection, settings: Settings) -> GaugeMetricFamily:
    said = "For how long a login's open transaction has kept the pipeline from rows or tables."
    blocking = _many("prepaid_blocking_session_seconds", said, "login")
    longest = dict[str, float]()
    blockers = waits.blockers_seen(connection)
    for blocker in waits.worth_telling(blockers, settings.blocked_seconds):
        longest[blocker.person] = max(blocker.seconds, longest.get(blocker.person, 0.0))
    for login, seconds in longest.items():
        blocking.add_metric([login], seconds)
    return blocking


def _of_dagster(connection: Connection) -> Iterator[GaugeMetricFamily]:
    success = _many("prepaid_job_last_success_timestamp_seconds", "When it last succeeded.", "job")
    seconds = _many("prepaid_job_last_success_seconds", "How long that run took.", "job")
    failed = _many("prepaid_job_failed", "Whether the job's latest run failed: 1 or 0.", "job")
    for row in _rows(connection, "jobs"):
        failed.add_metric([row.job], int(row.failed))
        if row.last_success is not None:
            success.add_metric([row.job], row.last_success)
            seconds.add_metric([row.job], row.seconds)
    runs = _many("prepaid_live_runs", "Runs that are queued or in progress.", "status")
    oldest = _many("prepaid_live_run_oldest_seconds", "Age of the oldest of them.", "status")
    for row in _rows(connection, "live_runs"):
        runs.add_metric([row.status], row.runs)
        oldest.add_metric([row.status], row.oldest_seconds)
    yield from (success, seconds, failed, runs, oldest)
    (daemon,) = _rows(connection, "daemon")
    if daemon.seconds is not None:
        said = "Age of the daemon's latest heartbeat."
        yield _one("prepaid_daemon_heartbeat_age_seconds", said, daemon.seconds)


def _of_audit(connection: Connection, anchored: _Anchored) -> Iterator[GaugeMetricFamily]:
    age = _rows(connection, "seals")[0].seconds
    if age is not None:
        said = "Age of the newest seal of the audit log."
        yield _one("prepaid_audit_seal_age_seconds", said, age)
    unsealed = seals.unsealed_seen(connection)
    yield _one("prepaid_audit_unsealed_entries", "Audit entries that are not sealed yet.", unsealed)
    known, newest = anchored
    if newest is not None:
        age = max(0.0, time.time() - newest.written_at.timestamp())
        said = "How long ago the newest anchor of the audit log was written to the report store."
        yield _one("prepaid_audit_anchor_age_seconds", said, age)
    if known:
        asked = {"seal_number": newest.seal_number if newest else 0}
        sealed = queries.statement(_SQL, "sealed_since").execute(connection, asked).scalar_one()
        said = "Audit entries, sealed or not, that no anchor of the report store covers."
        yield _one("prepaid_audit_unanchored_entries", said, sealed + unsealed)


def _latest_anchor(settings: Settings) -> _Anchored:
    answers: list[anchors.Latest | None] = []

    def ask() -> None:
        try:
            answers.append(anchors.latest(settings))
        except Exception as error:
            # Each kind of store has errors of its own, for keys, buckets and networks.
            failed = type(error).__name__
            logs.event(log, "anchors cannot be read", logging.ERROR, error=failed)

    asking = threading.Thread(target=ask, name="anchors", daemon=True)
    asking.start()
    asking.join(_STORE_SECONDS)
    return (True, answers[0]) if answers else (False, None)


def _rows(connection: Connection, part: str) -> list[Any]:
    return list(queries.statement(_SQL, part).execute(connection, {}))


def _one(name: str, said: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, said, value=float(value))


def _many(name: str, said: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, said, labels=[label])
