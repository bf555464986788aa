"""Figures that are late are told once to whoever looks after the pipeline."""

import email
import email.policy
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.revenue.figures import next_month
from prepaid_pipeline.settings.load import Settings, load
from tests.revenue.history import Term, insert

Evaluate = Callable[..., Any]


def mails(home: Path) -> list[str]:
    found = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in (home / "mail").rglob("*.eml")
    ]
    assert {mail["Subject"] for mail in found} <= {"Monthly figures are late"}
    return [mail.get_content().replace("\r\n", "\n") for mail in found]


def computed(engine: Engine, month: date, at: datetime, version: int) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO revenue.months (month, as_of, run_id, published_at)"
            " VALUES (%(month)s, CURRENT_DATE, 'x', %(at)s)"
            " ON CONFLICT (month) DO UPDATE SET published_at = excluded.published_at",
            {"month": month, "at": at},
        )
        connection.exec_driver_sql(
            "INSERT INTO revenue.report_versions (month, version, cut_off, note, run_id)"
            " VALUES (%(month)s, %(version)s, CURRENT_DATE, 'x', 'x') ON CONFLICT DO NOTHING",
            {"month": month, "version": version},
        )


@pytest.fixture
def settings_here(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PREPAID_ALERT_TO", "oncall@example.com")
    return load()


def test_late_figures_are_told_once_and_again_when_they_are_late_again(
    location: Any, evaluate: Evaluate, engine: Engine, settings_here: Settings
) -> None:
    now, home = datetime.now(UTC), settings_here.home
    running = settings_here.today().replace(day=1)
    assert evaluate("late_figures").skip_message == "all figures are on time", "nothing was sold"

    # Sold three months ago: two months should be closed by now, or three, by the day of the month.
    first = running
    for _ in range(3):
        first = (first - timedelta(days=1)).replace(day=1)
    insert(engine, [Term(first, months=12)])
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE prepaid.service_plans SET activated_at = now() - interval '90 days'"
        )
    tick = evaluate("late_figures")
    (told,) = mails(home)
    assert f"there are no figures for {running:%Y-%m}\n" in told
    assert f"{first:%Y-%m} should be closed and is not\n" in told
    assert "are the schedules running" in told

    assert len(json.loads(tick.cursor)) >= 2
    again = evaluate("late_figures", tick.cursor)
    assert len(mails(home)) == 1, "told once"

    month = first
    while month < running:
        computed(engine, month, now, 1)
        month = next_month(month)
    computed(engine, running, now - timedelta(hours=2), 0)
    fine = evaluate("late_figures", again.cursor)
    assert fine.skip_message == "all figures are on time"

    computed(engine, running, now - timedelta(hours=4), 0)
    evaluate("late_figures", fine.cursor)
    assert f"the figures of {running:%Y-%m} are those of " in mails(home)[-1] + mails(home)[0]
    assert len(mails(home)) == 2
