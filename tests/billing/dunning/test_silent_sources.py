"""After an outage nobody is reminded or cancelled for days of which no payment record has come."""

from datetime import date

import pytest

from prepaid_pipeline.billing import dunning
from prepaid_pipeline.cli.process import summary
from prepaid_pipeline.process.drain import drain
from prepaid_pipeline.settings.load import Settings
from tests.billing.dunning.conftest import day, dun, unpaid
from tests.world import World

EXPECTED = {"payments_expected_days": 4}


def landed(world: World, provider: str | None, *days: str, received: str | None = None) -> None:
    """Records about nothing that we know, as any delivery has some."""
    for occurred in days:
        record = world.record(None, "1.00", provider=provider, occurred_at=occurred)
        world.sql(
            "UPDATE prepaid.transactions SET received_at = CAST(:at AS timestamptz)"
            " WHERE transaction_id = :record",
            at=received or occurred,
            record=record,
        )


def silent(world: World, number: int) -> list[tuple[str | None, date | None]]:
    """The sources that are silent that many days after 2 November, and since when."""
    found = dunning.silent_sources(world.engine, day(number, **EXPECTED))
    return [(source.provider, source.last_on) for source in found]


def test_nobody_is_reminded_or_cancelled_until_a_record_lands(taxed: World) -> None:
    unpaid(taxed)
    landed(taxed, "bank", "2026-11-02T10:00Z", "2026-11-03T10:00Z")
    assert dun(taxed, 5, **EXPECTED) == (1, 0)
    assert silent(taxed, 6) == [("bank", date(2026, 11, 3))]
    assert dun(taxed, 7, **EXPECTED) == (0, 0)
    assert dun(taxed, 40, **EXPECTED) == (0, 0)
    landed(taxed, "bank", "2026-12-10T23:00Z")
    # For the days in between nothing has come; for those from now on something has.
    assert dun(taxed, 31, **EXPECTED) == (0, 0)
    assert dun(taxed, 40, **EXPECTED) == (0, 1)


def test_unset_it_is_not_looked_at(taxed: World) -> None:
    unpaid(taxed)
    assert dunning.silent_sources(taxed.engine, day(40)) == []
    assert dun(taxed, 40) == (0, 1)


def test_while_nothing_has_ever_come(taxed: World) -> None:
    unpaid(taxed)
    assert silent(taxed, 31) == [(None, None)]
    assert dun(taxed, 31, **EXPECTED) == (0, 0)


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ({"bank": ("2026-11-19", "2026-11-28"), "cards": ("2026-11-01", "2026-11-20")}, ["cards"]),
        ({"bank": ("2026-11-19", "2026-11-20"), "cards": ("2026-11-01", "2026-11-20")},
         ["bank", "cards"]),
        # Once is not usual, unless there is nothing else.
        ({"bank": ("2026-11-19", "2026-11-28"), "once": ("2026-11-01",)}, []),
        ({"bank": ("2026-11-20",)}, ["bank"]),
        # Another bank since the summer; then from nobody for more than 90 days.
        ({"bank": ("2026-11-19", "2026-11-28"), "old": ("2026-07-01", "2026-07-02")}, []),
        ({"old": ("2026-07-01", "2026-07-02")}, ["old"]),
        # What a record says of its day is believed if it can be.
        ({"bank": ("2026-11-28", "infinity")}, []),
        ({"bank": ("2026-11-20", "infinity")}, []),
        ({"bank": ("2062-01-01", "2026-11-28")}, []),
        ({"bank": ("-infinity", "0044-03-15 BC")}, []),
        ({"bank": ("2026-11-19", "2026-11-28"), "": ("-infinity", "infinity")}, []),
        ({None: ("2026-11-19", "2026-11-20")}, ["unknown"]),
    ],
)  # fmt: skip
def test_the_usual_sources(
    taxed: World, records: dict[str | None, tuple[str, ...]], found: list[str]
) -> None:
    """On 29 November; what has no day of its own landed on the 28th."""
    for provider, days in records.items():
        for occurred in days:
            received = occurred if occurred.startswith("2026") or not provider else "2026-11-28"
            landed(taxed, provider, occurred, received=received)
    assert [provider for provider, _ in silent(taxed, 27)] == found


def test_it_is_said(taxed: World, settings: Settings) -> None:
    unpaid(taxed)
    landed(taxed, "bank", "2026-11-02", "2026-11-03")
    at = day(31, **EXPECTED)
    done = drain(taxed.engine, settings, at)
    assert (done.reminded, done.cancelled_unpaid) == (0, 0)
    assert summary(done, at.as_of).endswith(
        "nobody is reminded or cancelled for this day: no bank file since 2026-11-03"
        " (provider bank)"
    )
