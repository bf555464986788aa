"""Settings that are more than one word: what they accept and how they refuse."""

from decimal import Decimal

import pytest

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.load import load


def chasing(**env: str) -> tuple[tuple[int, ...], int | None]:
    settings = load({f"PREPAID_{name.upper()}_DAYS": value for name, value in env.items()})
    return settings.reminder_days, settings.payment_days


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, ((3, 7, 14), 30)),
        ({"reminder": "1, 5,20 "}, ((1, 5, 20), 30)),
        ({"reminder": ""}, ((), 30)),
        ({"reminder": "none", "payment": "1"}, ((), 1)),
        ({"payment": ""}, ((3, 7, 14), 30)),
        ({"payment": "15"}, ((3, 7, 14), 15)),
        ({"payment": "never"}, ((3, 7, 14), None)),
        ({"reminder": "30,366", "payment": "never"}, ((30, 366), None)),
    ],
)
def test_reminder_and_payment_days(
    env: dict[str, str], expected: tuple[tuple[int, ...], int | None]
) -> None:
    assert chasing(**env) == expected


@pytest.mark.parametrize(
    "days", ["0,3", "-1", "3,3", "7,3", "3;7", "3,,7", "3,", "367", "1.5", "three", "never"]
)
def test_reminder_days_that_cannot_be(days: str) -> None:
    with pytest.raises(SettingError) as refused:
        chasing(reminder=days)
    assert str(refused.value) == (
        f"PREPAID_REMINDER_DAYS={days!r}: expected whole numbers from 1 to 366 in ascending order,"
        " separated by commas, such as 3,7,14, or none"
    )


@pytest.mark.parametrize("days", ["0", "-1", "367", "month", "Never"])
def test_payment_days_that_cannot_be(days: str) -> None:
    with pytest.raises(SettingError) as refused:
        chasing(payment=days)
    assert str(refused.value) == (
        f"PREPAID_PAYMENT_DAYS={days!r}: expected a whole number from 1 to 366, or never"
    )


@pytest.mark.parametrize(("days", "age"), [("", 90), ("0", 0), ("3660", 3660), ("never", None)])
def test_how_old_a_payment_may_be(days: str, age: int | None) -> None:
    assert load({"PREPAID_PAYMENT_MAX_AGE_DAYS": days}).payment_max_age_days == age


@pytest.mark.parametrize("days", ["-1", "3661", "1.5", "none"])
def test_how_old_no_payment_may_be(days: str) -> None:
    with pytest.raises(SettingError, match="expected a whole number from 0 to 3660, or never"):
        load({"PREPAID_PAYMENT_MAX_AGE_DAYS": days})


def test_the_last_reminder_comes_before_the_last_day() -> None:
    for env in ({"payment": "14"}, {"reminder": "30"}, {"reminder": "5,40"}):
        with pytest.raises(SettingError, match="expected more than the last day of PREPAID_REM"):
            chasing(**env)


@pytest.mark.parametrize(
    ("text", "value"), [("", "0"), ("0", "0"), ("12.5", "12.5"), ("10 %", "10")]
)
def test_the_percentage_of_concessions(text: str, value: str) -> None:
    settings = load({"PREPAID_CONCESSION_PERCENT": text})
    assert settings.concession_percent == Decimal(value)
    assert settings.imported_concessions == "agreed"


@pytest.mark.parametrize("text", ["-1", "100.01", "NaN", "all", "1e9", "ten"])
def test_a_percentage_that_cannot_be(text: str) -> None:
    with pytest.raises(SettingError) as refused:
        load({"PREPAID_CONCESSION_PERCENT": text})
    assert str(refused.value) == (
        f"PREPAID_CONCESSION_PERCENT={text!r}: expected a percentage from 0 to 100, such as 5 or 12.5"
    )


def test_imported_concessions_are_agreed_or_wait() -> None:
    assert load({"PREPAID_IMPORTED_CONCESSIONS": "wait"}).imported_concessions == "wait"
    with pytest.raises(
        SettingError, match="PREPAID_IMPORTED_CONCESSIONS='no': expected agreed or wait"
    ):
        load({"PREPAID_IMPORTED_CONCESSIONS": "no"})
