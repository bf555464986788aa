"""Fault 6: the worker's clock is wrong; the days are odd.

A worker with a wrong clock does nothing on a day that it takes from it. Where it is told the day,
or goes wrong meanwhile, leases and waiting times are the database's, so that nothing happens twice
or too early. Odd days are played with server and worker on the same moved clock, by the commands.
"""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from prepaid_pipeline.database import connections, migrations
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.process import steps
from tests.faults import clocks
from tests.faults.business import GOING_ON, Business
from tests.faults.clocks import Clock, needs_faketime, restart_with
from tests.faults.recorder import Recorder
from tests.faults.servers import OwnServer
from tests.faults.workers import Workers
from tests.world import World, context

pytestmark = [pytest.mark.fault, needs_faketime]
_SKEWS = {"36 h behind": timedelta(hours=-36), "40 days ahead": timedelta(days=40)}


def command(workers: Workers, url: str, *arguments: str, **settings: str) -> tuple[int, str]:
    environ = {"PREPAID_DATABASE_URL": url} | {
        f"PREPAID_{k.upper()}": v for k, v in settings.items()
    }
    said = workers.run(work="command", arguments=arguments, environ=environ).said
    return said["code"], said["output"]


@pytest.mark.parametrize("skew", _SKEWS)
def test_a_worker_whose_clock_is_wrong(
    business: Business, record: Recorder, tmp_path: Path, skew: str
) -> None:
    wrong, url = list[str](), business.settings.database_url or ""
    common = {"url": url, "home": str(tmp_path), "smtp": business.sink.url}
    with Workers(tmp_path / "skewed.log", clocks.skew(_SKEWS[skew]), **common) as skewed:
        wrong += _work_with(skewed, business, url, tmp_path)
    business.finish()
    wrong += business.wrong()
    record(
        fault=6,
        points=8,
        violations=len(wrong),
        what=f"the worker's clock {skew}: commands refuse, leases and mails go by the database's",
    )
    assert wrong == []


def _work_with(skewed: Workers, business: Business, url: str, home: Path) -> list[str]:
    """Eight things that a worker with a wrong clock does; what was wrong about it."""
    wrong = list[str]()
    business.add(4, GOING_ON)

    # A day that it takes from its clock: nothing is done, and it is told why.
    before = business.world.dump()
    for arguments in (("drain",), ("tasks", "list"), ("check",)):
        code, said = command(skewed, url, *arguments, home=str(home))
        if code != 1 or "clock and this machine's differ by" not in said:
            wrong.append(f"{arguments}: {code} {said}")
    if business.world.dump() != before:
        wrong.append("a command with a wrong clock changed something")

    # It was told the day: what another worker has a lease on is left alone, the rest goes on.
    steps.open_service_plans(business.engine, context())
    batch = business.claim("open_renewals", len(GOING_ON))
    skewed.run(work="drain")
    taken = "SELECT count(*) FROM prepaid.unsettled_plans WHERE batch_id = :batch"
    if business.world.sql(taken, batch=batch) != len(GOING_ON):
        wrong.append("plans under a lease were taken")
    # Over by the database's clock is over, whatever the worker's says.
    business.do("time_passes")
    skewed.run(work="drain")
    if business.world.sql(taken, batch=batch):
        wrong.append("plans whose lease was over were not taken")
    business.pay()
    business.approve()
    skewed.run(work="drain")
    business.approve()
    skewed.run(work="drain")
    early = business.world.sql(
        "SELECT count(*) FROM prepaid.service_plans WHERE status = 'Expired' AND end_date > :day",
        day=context().as_of,
    )
    wrong += ["terms expired too early"] * (early > 0)
    return wrong


@pytest.fixture(scope="module")
def moved(mortal: OwnServer) -> Iterator[Clock]:
    """The clock of a server, which moves from moment to moment."""
    clock = Clock(mortal.home / "clock")
    restart_with(mortal, clock)
    yield clock
    mortal.stop()  # at once: an orderly end waits for the clock


@pytest.fixture
def moved_world(mortal: OwnServer, moved: Clock) -> Iterator[World]:
    """A migrated database of its own on that server."""
    engine = mortal.engine()
    name = f"clock_{os.urandom(6).hex()}"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    engine = connections.engine_for(engine.url.set(database=name))
    migrations.upgrade(engine)
    yield World(engine)
    engine.dispose()


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hourly(first: str, hours: int) -> list[datetime]:
    return [utc(first) + timedelta(hours=n) for n in range(hours)]


def around(*midnights: str) -> list[datetime]:
    return [utc(m) + timedelta(minutes=by) for m in midnights for by in (-1, 1)]


# What is played: the zone, the moments at which the daily work is done, the ends of terms.
_YEARS_END = around("2026-12-31T10:00", "2027-01-01T00:00", "2027-01-01T11:00")
_PLAYED = {
    "spring night in Berlin": ("Europe/Berlin", hourly("2027-03-27T21:30", 6), "2027-03-28"),
    "autumn night in Berlin": ("Europe/Berlin", hourly("2027-10-30T20:30", 7), "2027-10-31"),
    "midnight in Santiago": ("America/Santiago", hourly("2027-09-05T02:30", 5), "2027-09-05"),
    "month end on Kiritimati": ("Pacific/Kiritimati", _YEARS_END, "2026-12-31"),
    "month end in UTC": ("UTC", _YEARS_END, "2026-12-31"),
    "month end on Pago Pago": ("Pacific/Pago_Pago", _YEARS_END, "2026-12-31"),
    "29 February 2028": ("UTC", around("2028-02-29T00:00", "2028-03-01T00:00"), "2028-02-29"),
}


def renewals(world: World, middle: date) -> list[date]:
    """Monthly terms that end on the days around ``middle``; the ends."""
    world.tax_rate("0.0725")
    ends = [middle + timedelta(days=n) for n in (-1, 0, 1, 2)]
    for end in ends:
        world.due_renewal(end)
    return ends


@pytest.mark.parametrize("played", _PLAYED)
def test_odd_days(
    mortal: OwnServer,
    moved: Clock,
    moved_world: World,
    record: Recorder,
    tmp_path: Path,
    played: str,
) -> None:
    """Each plan is opened, invoiced and its term expired on its own local day, once."""
    world, (zone, moments, middle) = moved_world, _PLAYED[played]
    url = world.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    moved.set(moments[0])
    ends, wrong = renewals(world, date.fromisoformat(middle)), list[str]()
    migrations.write_timezone(world.engine, ZoneInfo(zone))
    settings = {"timezone": zone, "lead_days": "0", "home": str(tmp_path)}
    with Workers(tmp_path / "moved.log", moved.environ, url=url, home=str(tmp_path)) as workers:
        for moment in moments:
            moved.set(moment)
            code, said = command(workers, url, "drain", **settings)
            wrong += [f"{moment}: {said}"] * (code != 0)
            wrong += _other_days(world, ends, moment.astimezone(ZoneInfo(zone)).date(), moment)
    record(
        fault=6,
        points=len(moments),
        violations=len(wrong),
        what=f"{played}: the daily work around midnight, server and worker on that clock",
    )
    assert wrong == []


def _other_days(world: World, ends: list[date], day: date, moment: datetime) -> list[str]:
    """What is not as it must be when it is ``day`` where the installation is."""
    opened = world.rows(
        "SELECT p.planned_start, p.opened_on, i.issued_on FROM prepaid.service_plans p"
        " LEFT JOIN prepaid.invoices i USING (service_plan_id) WHERE p.origin = 'pipeline'"
        " ORDER BY 1"
    )
    expired = world.rows(
        "SELECT end_date FROM prepaid.service_plans WHERE status = 'Expired' ORDER BY 1"
    )
    due = [end for end in ends if end <= day]
    found = [f"{moment}: opened {opened}, due are {due}"] * ([row[0] for row in opened] != due)
    found += [f"{moment}: expired {expired}, over are {due}"] * ([row[0] for row in expired] != due)
    # Those of the first moment may have been due for a day.
    found += [
        f"{moment}: opened on {on}, invoiced on {issued}, it was due on {start}"
        for start, on, issued in opened
        if on != issued
        or not start <= on <= day
        or (start > min(ends) + timedelta(1) and on != start)
    ]
    for check in invariants.run(world.engine, context(day, lead_days=0)):
        found += [f"{moment}: {finding}" for finding in check.findings]
    return found
