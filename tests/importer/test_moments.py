"""Moments in subscriptions.csv, and customers who come back after they had left at once."""

from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.billing import subscriptions
from prepaid_pipeline.billing.subscriptions import Named
from prepaid_pipeline.importer.loading import import_directory
from tests.importer.folders import AS_OF, BASE, rows, take, write
from tests.world import World, context

HEADER = "subscription_ref,customer_ref,plan_code,started_on,auto_renew,price,addons,cancelled_on\n"
TERMS = "subscription_ref,start_date,end_date,price,status\n"


@pytest.mark.parametrize(
    ("zone", "started", "cancelled"),
    [
        ("Europe/Berlin", date(2026, 11, 2), date(2027, 1, 1)),
        ("Pacific/Kiritimati", date(2026, 11, 3), date(2027, 1, 1)),
        ("America/Los_Angeles", date(2026, 11, 2), date(2026, 12, 31)),
    ],
)
def test_a_moment_is_its_local_day(
    engine: Engine, folder: Path, zone: str, started: date, cancelled: date
) -> None:
    """Bought at 23:30 in Berlin, cancelled half an hour into the new year there."""
    line = "S-1,C-1,basic,2026-11-02T23:30:00+01:00,true,,,2026-12-31T23:30:00Z\n"
    master = {name: BASE[name] for name in ("customers", "plans", "addons", "tax_rates")}
    write(folder, {**master, "subscriptions": HEADER + line})
    for status in ("imported", "unchanged"):
        reports = import_directory(
            engine, folder, as_of=AS_OF, grace_days=7, timezone=ZoneInfo(zone)
        )
        assert reports[-1].status == status, reports[-1]
    query = "SELECT started_on, anchor_date, cancelled_on FROM prepaid.subscriptions"
    assert rows(engine, query) == [(started, started, cancelled)]


def test_what_is_neither_day_nor_moment(engine: Engine, folder: Path) -> None:
    master = {name: BASE[name] for name in ("customers", "plans", "addons", "tax_rates")}
    reports = take(
        engine, folder, {**master, "subscriptions": HEADER + "S-1,C-1,basic,soon,true,,,\n"}
    )
    assert reports["subscriptions"].errors == [
        "subscriptions.csv:2:started_on: found 'soon', expected a date such as 2026-01-31, or a"
        " moment such as 2026-01-31T23:30:00+01:00"
    ]


def test_coming_back_after_leaving_at_once(engine: Engine, folder: Path, world: World) -> None:
    """The order follows the term that was cut: it is no new customer, and it may begin that day."""
    world.tax_rate("0.0725")
    take(
        engine,
        folder,
        {name: BASE[name] for name in ("customers", "plans", "addons")}
        | {
            "subscriptions": HEADER + "S-1,C-1,basic,2026-11-02,true,,storage;set-up,\n",
            "service_plans": TERMS + "S-1,2026-11-02,2026-12-02,10.00,Active\n",
        },
    )
    ((subscription,),) = rows(engine, "SELECT subscription_id FROM prepaid.subscriptions")
    subscriptions.cancel(
        engine,
        world.officer(),
        Named(subscription, None),
        "moves",
        at_once=True,
        as_of=date(2026, 11, 5),
    )
    # The old system still has the term to its full end: no difference but that it is over.
    again = take(
        engine,
        folder,
        {
            "service_plans": TERMS + "S-1,2026-11-02,2026-12-02,10.00,Active\n"
            "S-1,2026-11-25,2026-12-25,12.50,Pending\n",
        },
    )["service_plans"]
    assert (again.added, again.errors) == (1, [])
    assert [line.partition(": found")[0] for line in again.differences] == [
        "service_plans.csv:2:status"
    ]
    world.sql("UPDATE prepaid.subscriptions SET cancelled_on = NULL")
    at = context(date(2026, 11, 25))
    (plan,) = world.open(at)
    world.pay_and_approve(plan)
    world.settle(at)
    assert rows(
        engine,
        "SELECT kind, status, start_date, end_date, net_amount FROM prepaid.service_plans"
        " ORDER BY service_plan_id DESC LIMIT 1",
    ) == [("reactivation", "Active", date(2026, 11, 25), date(2026, 12, 25), 14.5)]


def test_a_plan_cancelled_at_once_blocks_its_days_only(
    engine: Engine, folder: Path, world: World
) -> None:
    world.tax_rate("0.0725")
    take(
        engine,
        folder,
        {name: BASE[name] for name in ("customers", "plans", "addons")}
        | {
            "subscriptions": HEADER + "S-1,C-1,basic,2026-11-02,true,,,\n",
            "service_plans": TERMS + "S-1,2026-11-02,2026-12-02,10.00,Active\n",
        },
    )
    ((subscription,),) = rows(engine, "SELECT subscription_id FROM prepaid.subscriptions")
    subscriptions.cancel(
        engine,
        world.officer(),
        Named(subscription, None),
        "moves",
        at_once=True,
        as_of=date(2026, 11, 5),
    )
    early = take(engine, folder, {"service_plans": TERMS + "S-1,2026-11-04,2026-12-04,1,Active\n"})
    assert early["service_plans"].errors == [
        "service_plans.csv:2:start_date: found '2026-11-04', expected 2026-11-05 or later: until"
        " then runs the last known term of the subscription"
    ]
    on_time = take(
        engine, folder, {"service_plans": TERMS + "S-1,2026-11-05,2026-12-05,1,Active\n"}
    )
    assert on_time["service_plans"].status == "imported"
