"""A real `prepaid up` on a database server of its own, with work for it and eyes on its runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from sqlalchemy import make_url

from prepaid_pipeline.audit import seals
from prepaid_pipeline.database import connections, embedded
from prepaid_pipeline.operations import invariants
from tests.mail.conftest import free_port
from tests.operations.service.running import Up, started
from tests.world import World, context

_CUSTOMERS = """
INSERT INTO prepaid.customers (customer_ref, name, email, country, currency)
SELECT 'M' || n, 'Customer ' || n, 'someone@example.com', 'US', 'USD'
FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) n
"""
_PURCHASES = """
INSERT INTO prepaid.subscriptions
    (subscription_ref, customer_id, plan_id, started_on, anchor_date, auto_renew)
SELECT 'S' || customer_ref, customer_id, :plan, CURRENT_DATE, CURRENT_DATE, true
FROM prepaid.customers c
WHERE NOT EXISTS (SELECT FROM prepaid.subscriptions s WHERE s.customer_id = c.customer_id)
"""
_PAID = """
INSERT INTO prepaid.transactions
    (provider, provider_ref, invoice_number, amount, currency, status, occurred_at, customer_ref)
SELECT 'bank', 'pay-' || i.invoice_id, i.invoice_number, i.payable, i.currency, 'Success',
       clock_timestamp(), c.customer_ref
FROM prepaid.invoices i JOIN prepaid.customers c USING (customer_id)
WHERE i.status = 'Open' AND NOT EXISTS (SELECT FROM prepaid.transactions t
                                        WHERE t.invoice_number = i.invoice_number)
"""
# What each plan must have once, whatever died: how many plans have something else.
_EFFECTS = """
SELECT count(*) FROM prepaid.service_plans p
WHERE p.status <> 'Active'
   OR 1 <> (SELECT count(*) FROM prepaid.invoices i
            WHERE i.service_plan_id = p.service_plan_id AND i.status = 'Paid')
   OR 1 <> (SELECT count(*) FROM prepaid.invoices i WHERE i.service_plan_id = p.service_plan_id)
   OR 1 <> (SELECT count(*) FROM prepaid.audit_log a
            WHERE a.service_plan_id = p.service_plan_id AND a.event = 'service_provisioned')
   OR 1 <> (SELECT count(*) FROM prepaid.emails e
            WHERE e.service_plan_id = p.service_plan_id
              AND e.template = 'activation_confirmation')
   OR 1 <> (SELECT count(*) FROM prepaid.tasks t
            WHERE t.service_plan_id = p.service_plan_id AND t.kind = 'quality_check')
"""
# Of the sensors that look every 30 s; others look less often.
_DUE = """
SELECT extract(epoch FROM min(last) + interval '30 s')::float8 FROM (
    SELECT max(timestamp AT TIME ZONE 'UTC') AS last,
           (array_agg(timestamp AT TIME ZONE 'UTC' ORDER BY timestamp DESC))[2] AS before
    FROM dagster.job_ticks WHERE type = 'SENSOR' GROUP BY selector_id) s
WHERE last - before < interval '40 s' AND last > clock_timestamp() - interval '60 s'
"""
_TICKS = """
SELECT extract(epoch FROM min(timestamp AT TIME ZONE 'UTC'))::float8 - %s::float8
FROM dagster.job_ticks
WHERE type = 'SENSOR' AND extract(epoch FROM timestamp AT TIME ZONE 'UTC') > %s::float8
"""
_LIVE = ["STARTING", "STARTED", "CANCELING", "NOT_STARTED", "QUEUED"]


@dataclass
class Running:
    """``prepaid up`` and its database server, which the test may stop and start."""

    up: Up
    data: Path
    url: str
    world: World
    plan: int
    made: int = 0

    def ask(self, query: str, *args: Any) -> Any:
        """One value, or None while the server is down."""
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                row = connection.execute(query, args).fetchone()  # type: ignore[arg-type]
        except psycopg.OperationalError:
            return None
        return row[0] if row else None

    def buy(self, number: int) -> None:
        """That many new customers subscribe; a sensor opens and invoices their plans."""
        self.world.sql(_CUSTOMERS, first=self.made + 1, last=self.made + number)
        self.made += number
        self.world.sql(_PURCHASES, plan=self.plan)

    def invoiced(self) -> bool:
        asked = "SELECT count(*) FROM prepaid.service_plans WHERE invoiced_at IS NOT NULL"
        return bool(self.ask(asked) == self.made)

    def pay(self) -> None:
        """All open invoices are paid, and the payments approved by a person."""
        self.world.sql(_PAID)
        self.world.match(context())
        code = self.up.command("tasks", "approve", "--all-agreeing", "--as", "test_officer")
        assert code.returncode == 0, code.stderr

    def settled(self) -> bool:
        return self.ask("SELECT count(*) FROM prepaid.unsettled_plans") == 0

    def live_runs(self) -> int | None:
        found = "SELECT count(*) FROM dagster.runs WHERE status = ANY (%s)"
        return None if (number := self.ask(found, _LIVE)) is None else int(number)

    def run_is(self, job: str, status: str) -> bool:
        asked = "SELECT count(*) FROM dagster.runs WHERE pipeline_name = %s AND status = %s"
        return bool(self.ask(asked, job, status))

    def child(self, part: str) -> psutil.Process:
        """The process of ``prepaid up`` with that in its command line."""
        found = psutil.Process(self.up.process.pid).children()
        (process,) = (p for p in found if part in " ".join(p.cmdline()))
        return process

    def run_worker(self) -> psutil.Process | None:
        """The process of a run, which the code server has started."""
        children = self.child("service.code_server").children()
        workers = [p for p in children if "spawn_main" in " ".join(p.cmdline())]
        return workers[-1] if workers else None

    def due(self) -> float:
        """When the next sensor is to look, in seconds since 1970: each looks every 30 s."""
        return float(self.ask(_DUE) or 0)

    def late_tick(self, recovered: float, due: float) -> float:
        """How many seconds after the recovery, or after it was due, the first tick came."""
        from_then = max(recovered, due)
        wait_for(lambda: bool(self.ask(_TICKS, recovered, recovered) is not None), 90)
        return max(0.0, recovered + float(self.ask(_TICKS, recovered, recovered)) - from_then)

    def violations(self) -> int:
        """Plans without their effects once, findings of the checks and of the audit log."""
        wrong = int(self.world.sql(_EFFECTS))
        today = self.world.sql("SELECT CURRENT_DATE")
        found = [f for c in invariants.run(self.world.engine, context(today)) for f in c.findings]
        seals.seal(self.world.engine, wait=True)
        return wrong + len(found) + len(list(seals.verify(self.world.engine)))


def wait_for(ready: Callable[[], bool], seconds: float, every: float = 0.1) -> float:
    begun = time.monotonic()
    while not ready():
        assert time.monotonic() - begun < seconds, "did not come about in time"
        time.sleep(every)
    return time.monotonic() - begun


@contextmanager
def running(output: Path, home: Path) -> Iterator[Running]:
    """``home`` is where the server's data goes; not below pytest's own directories."""
    url = embedded.start(home)
    try:
        with started(output, database_url=url, metrics_port=str(free_port())) as up:
            world = World(connections.engine_for(make_url(url)))
            world.tax_rate("0.0725")
            world.officer()
            try:
                yield Running(up, home, url, world, world.plan())
            finally:
                world.engine.dispose()
    finally:
        embedded.stop(home)
