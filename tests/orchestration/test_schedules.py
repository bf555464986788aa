"""Schedules work for the day of their tick, in the installation's time zone."""

from datetime import UTC, date, datetime, timedelta
from itertools import takewhile

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from prepaid_pipeline.definitions import build_defs

DAILY = {
    "open_renewals_daily": ("open_renewals", "open_service_plans"),
    "expire_service_plans_daily": ("expire_service_plans", "expire_ended_plans"),
    "dun_unpaid_invoices_daily": ("dun_unpaid_invoices", "remind_unpaid_invoices"),
    "remind_overdue_tasks_daily": ("remind_overdue_tasks", "remind_of_overdue_tasks"),
    "clean_up_daily": ("clean_up", "delete_old_runs"),
    "verify_audit_log_daily": ("verify_audit_log", "verify_whole_log"),
    "anchor_audit_log_daily": ("anchor_audit_log", "anchor_newest_seal"),
}
# The local hours at which they may run; the later one where the earlier does not exist.
HOURS = {name: {0, 1} for name in DAILY} | {
    "dun_unpaid_invoices_daily": {10},
    "remind_overdue_tasks_daily": {7},
    "clean_up_daily": {3},
    "verify_audit_log_daily": {4},
}


def asked_for(location: dg.RepositoryDefinition, name: str, at: datetime) -> str:
    """The business date of the run that a tick at ``at`` asks for."""
    with dg.build_schedule_context(scheduled_execution_time=at) as context:
        (request,) = location.get_schedule_def(name).evaluate_tick(context).run_requests
    job, op = DAILY[name]
    assert location.get_schedule_def(name).job_name == job
    assert request.run_key is None
    # Dagster refuses a configuration that the job does not know.
    assert dg.validate_run_config(location.get_job(job), request.run_config)
    return request.run_config["ops"][op]["config"]["as_of"]


@pytest.mark.parametrize("name", DAILY)
@pytest.mark.parametrize(
    ("zone", "tick_utc", "business_date"),
    [
        ("UTC", datetime(2026, 11, 2, 0, 10, tzinfo=UTC), "2026-11-02"),
        # UTC+14: the day begins at 10:00 UTC of the day before.
        ("Pacific/Kiritimati", datetime(2026, 11, 1, 10, 10, tzinfo=UTC), "2026-11-02"),
        # UTC-8: the day begins at 08:00 UTC; UTC-7 until 1 November 2026, 02:00.
        ("America/Los_Angeles", datetime(2026, 11, 2, 8, 10, tzinfo=UTC), "2026-11-02"),
        ("America/Los_Angeles", datetime(2026, 11, 1, 7, 10, tzinfo=UTC), "2026-11-01"),
        # The nights in which the clocks of Berlin change, and the year's last and first day.
        ("Europe/Berlin", datetime(2026, 3, 28, 23, 10, tzinfo=UTC), "2026-03-29"),
        ("Europe/Berlin", datetime(2026, 3, 29, 22, 10, tzinfo=UTC), "2026-03-30"),
        ("Europe/Berlin", datetime(2026, 10, 24, 22, 10, tzinfo=UTC), "2026-10-25"),
        ("Europe/Berlin", datetime(2026, 10, 25, 23, 10, tzinfo=UTC), "2026-10-26"),
        ("Europe/Berlin", datetime(2026, 12, 31, 23, 10, tzinfo=UTC), "2027-01-01"),
        # UTC+13 since Samoa crossed the date line.
        ("Pacific/Apia", datetime(2026, 12, 31, 11, 10, tzinfo=UTC), "2027-01-01"),
        # A tick that is caught up a year later still works for its own day.
        ("Pacific/Kiritimati", datetime(2025, 2, 28, 10, 10, tzinfo=UTC), "2025-03-01"),
    ],
)
def test_the_ticks_own_local_day(
    monkeypatch: pytest.MonkeyPatch, name: str, zone: str, tick_utc: datetime, business_date: str
) -> None:
    monkeypatch.setenv("PREPAID_TIMEZONE", zone)
    assert asked_for(build_defs().get_repository_def(), name, tick_utc) == business_date


# In Cairo the clocks go from 00:00 to 01:00 when summer time begins: 00:10 does not exist then.
@pytest.mark.parametrize(
    "zone",
    [
        "Pacific/Kiritimati",
        "Pacific/Apia",
        "America/Los_Angeles",
        "Africa/Cairo",
        "Europe/Berlin",
        "America/Santiago",
    ],
)
def test_once_for_every_day_at_its_hour(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("PREPAID_TIMEZONE", zone)
    location = build_defs().get_repository_def()
    for name in DAILY:
        schedule = location.get_schedule_def(name)
        assert schedule.execution_timezone == zone
        ticks = schedule_execution_time_iterator(
            datetime(2026, 3, 1, tzinfo=UTC).timestamp(), schedule.cron_schedule, zone, True
        )
        year = list(takewhile(lambda tick: tick < datetime(2026, 12, 1, tzinfo=UTC), ticks))
        assert {tick.hour for tick in year} <= HOURS[name]
        days = [
            date.fromisoformat(asked_for(location, name, tick.astimezone(UTC)))
            for tick in year[50:60]
        ]
        assert days == [days[0] + timedelta(n) for n in range(10)]
        assert len({tick.date() for tick in year}) == len(year) in (274, 275)
