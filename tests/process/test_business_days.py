"""The business date: the local day of a moment, in the installation's time zone and in files."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from prepaid_pipeline.database import migrations
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.importer import values
from prepaid_pipeline.process import steps
from tests.world import World, context

# The farthest ahead and behind, clocks that change in both hemispheres (by half an hour on Lord
# Howe), at midnight (Cairo, Santiago), and a place that left out a day.
ZONES = (
    "Pacific/Kiritimati",
    "America/Los_Angeles",
    "Europe/Berlin",
    "Pacific/Apia",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Santiago",
    "Pacific/Pago_Pago",
    "UTC",
)
_MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2037, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001


def local_day(world: World, zone: str, moment: datetime) -> date:
    """As the database counts it, in a session that is somewhere else; nothing is kept."""
    with world.engine.connect() as connection:
        connection.execute(text("SET LOCAL TIME ZONE 'Asia/Tokyo'"))
        connection.execute(text("UPDATE prepaid.installation SET timezone = :z"), {"z": zone})
        found = connection.execute(text("SELECT prepaid.business_date(:m)"), {"m": moment})
        return found.scalar_one()


@hypothesis_settings(max_examples=200, deadline=None)
@given(zone=st.sampled_from(ZONES), moment=_MOMENTS)
def test_any_moment_in_any_zone(module_world: World, zone: str, moment: datetime) -> None:
    """Against Python's own time zones; and a file says the same as the database."""
    day = moment.astimezone(ZoneInfo(zone)).date()
    assert local_day(module_world, zone, moment) == day
    assert values.local_day(ZoneInfo(zone))(moment.isoformat()) == day.isoformat()


def changes_of_the_clock(zone: str, year: int) -> list[datetime]:
    """The moments (UTC, full hours) after which the zone's offset is another one."""
    start = datetime(year, 1, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=n) for n in range(366 * 24)]
    offsets = [moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in hours]
    return [hours[n] for n in range(1, len(hours)) if offsets[n] != offsets[n - 1]]


@pytest.mark.parametrize("zone", ZONES)
def test_days_on_which_the_clock_changes_and_year_ends(module_world: World, zone: str) -> None:
    """A second before and at each local midnight around them."""
    place = ZoneInfo(zone)
    days = {moment.astimezone(place).date() for moment in changes_of_the_clock(zone, 2026)}
    days |= {date(2026, 12, 31), date(2028, 2, 28), date(2011, 12, 29)}
    for day in sorted(days | {day + timedelta(1) for day in days}):
        midnight = datetime(day.year, day.month, day.day, tzinfo=place).astimezone(UTC)
        for moment in (midnight - timedelta(seconds=1), midnight):
            expected = moment.astimezone(place).date()
            assert local_day(module_world, zone, moment) == expected, (zone, moment)


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2026-11-02", "2026-11-02"),
        ("2026-11-02T23:30:00+01:00", "2026-11-02"),
        ("2026-11-02T22:30:00Z", "2026-11-02"),
        ("2026-11-02T23:30:00Z", "2026-11-03"),
        ("2026-11-02 23:30", "2026-11-02"),  # local time, as it names no offset
        ("2026-12-31T23:59:59.999999", "2026-12-31"),
        ("2026-03-29T02:30:00", "2026-03-29"),  # an hour that the clocks leave out
    ],
)
def test_a_moment_in_a_file_is_its_local_day(written: str, day: str) -> None:
    assert values.local_day(ZoneInfo("Europe/Berlin"))(written) == day


@pytest.mark.parametrize(
    "written",
    [
        "2026-02-30",
        "2026-02-30T10:00:00",
        "2026-11-02T24:30:00Z",
        "1761-01-01T00:00:00Z",
        "20261102",
        "2026-W45-1",
        "yesterday",
        "2026-11-02T10:00:00 UTC",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_what_is_no_moment(written: str) -> None:
    with pytest.raises(values.BadValue, match="a date such as 2026-01-31, or a moment such as"):
        values.local_day(ZoneInfo("Europe/Berlin"))(written)


def test_the_zone_is_written_and_audited_once(world: World) -> None:
    for _ in range(2):
        migrations.write_timezone(world.engine, ZoneInfo("Pacific/Kiritimati"))
    assert migrations.written_timezone(world.engine) == "Pacific/Kiritimati"
    assert world.rows("SELECT event, detail, actor FROM prepaid.audit_log") == [
        ("installation_changed", "timezone: UTC -> Pacific/Kiritimati", "prepaid migrate")
    ]
    ahead = datetime.now(UTC).astimezone(ZoneInfo("Pacific/Kiritimati")).date()
    assert world.sql("SELECT prepaid.today()") in (ahead, ahead + timedelta(1))


def test_a_zone_that_the_server_does_not_know(world: World) -> None:
    class Invented(ZoneInfo):
        def __str__(self) -> str:
            return "Mars/Base"

    with pytest.raises(SettingError, match="PREPAID_TIMEZONE='Mars/Base': the database server doe"):
        migrations.write_timezone(world.engine, Invented("UTC"))
    assert migrations.written_timezone(world.engine) == "UTC"


def test_the_given_business_date_goes_before_the_clock(world: World) -> None:
    with world.engine.begin() as connection:
        connection.execute(text("SELECT set_config('prepaid.as_of', '2026-11-02', true)"))
        assert connection.execute(text("SELECT prepaid.today()")).scalar() == date(2026, 11, 2)


@pytest.mark.parametrize("day", [date(2026, 3, 29), date(2026, 10, 25), date(2026, 12, 31)])
def test_the_same_local_day_run_twice_opens_each_renewal_once(world: World, day: date) -> None:
    """On days of 23 and 25 hours, at the year's end: a renewal for each, whatever runs again."""
    world.tax_rate("0.0725")
    for n in range(3):
        world.due_renewal(day + timedelta(n))
    at = context(day)
    assert [steps.open_service_plans(world.engine, at) for _ in range(2)] == [3, 0]
    world.open(at)
    world.open(context(day + timedelta(1)))
    assert world.sql("SELECT count(*) FROM prepaid.invoices") == 3
