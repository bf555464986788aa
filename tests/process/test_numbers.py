"""Document numbers: gapless per series and year, whoever asks at once, whatever is undone."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from sqlalchemy import text

from tests.world import World

NEXT = text("SELECT prepaid.next_document_number(:series, :day)")


def next_number(world: World, series: str, day: date) -> str:
    number: str = world.sql(
        "SELECT prepaid.next_document_number(:series, :day)", series=series, day=day
    )
    return number


def test_each_series_and_year_has_numbers_of_its_own(world: World) -> None:
    asked = [("CN", date(2026, 12, 31)), ("CN", date(2027, 1, 1)), ("INV", date(2026, 5, 1)),
             ("CN", date(2026, 1, 1))]  # fmt: skip
    assert [next_number(world, *each) for each in asked] == [
        "CN-2026-000001", "CN-2027-000001", "INV-2026-000001", "CN-2026-000002",
    ]  # fmt: skip


@pytest.mark.parametrize("ends", ["rollback", "close"])
def test_a_number_that_was_not_used_is_given_again(world: World, ends: str) -> None:
    day = date(2026, 11, 2)
    assert next_number(world, "CN", day) == "CN-2026-000001"
    connection = world.engine.connect()
    lost = connection.execute(NEXT, {"series": "CN", "day": day}).scalar_one()
    getattr(connection, ends)()
    assert next_number(world, "CN", day) == lost == "CN-2026-000002"
    connection.close()


def test_twenty_at_once_get_twenty_numbers(world: World) -> None:
    def issue(_: int) -> list[str]:
        return [next_number(world, "CN", date(2026, 11, 2)) for _ in range(5)]

    with ThreadPoolExecutor(20) as threads:
        numbers = [number for found in threads.map(issue, range(20)) for number in found]
    assert sorted(numbers) == [f"CN-2026-{n:06}" for n in range(1, 101)]
