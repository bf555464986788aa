"""A failed run is told to whoever looks after the pipeline."""

import email
import email.policy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

BROKEN = {"ops": {"open_service_plans": {"config": {"as_of": "nonsense"}}}}


Evaluate = Callable[..., Any]


def fail_a_run(
    location: dg.RepositoryDefinition, instance: dg.DagsterInstance, evaluate: Evaluate
) -> str:
    """Fail a run of the real job between two ticks of the sensor; the run's id."""
    first = evaluate("run_failures")
    failed = location.get_job("open_renewals").execute_in_process(
        BROKEN, instance=instance, raise_on_error=False
    )
    evaluate("run_failures", first.cursor)
    return failed.run_id


def test_an_alert_says_what_failed_and_what_happens_next(
    location: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    evaluate: Evaluate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PREPAID_ALERT_TO", "oncall@example.com, lead@example.com")
    run_id = fail_a_run(location, instance, evaluate)
    mails = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in (tmp_path / "home" / "mail").rglob("*.eml")
    ]
    assert sorted(mail["To"] for mail in mails) == ["lead@example.com", "oncall@example.com"]
    assert {mail["Subject"] for mail in mails} == {"Run of open_renewals failed"}
    text = mails[0].get_content()
    assert f"Run: {run_id}" in text
    assert "No plan is lost" in text
    # The cause itself, not only that steps have failed.
    assert "Invalid isoformat string: 'nonsense'" in text
    assert f"open_renewals failed (run {run_id})" in capsys.readouterr().err


def test_without_an_address_it_is_logged_only(
    location: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    evaluate: Evaluate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_id = fail_a_run(location, instance, evaluate)
    assert not (tmp_path / "home" / "mail").exists()
    assert f"open_renewals failed (run {run_id})" in capsys.readouterr().err
