"""The real jobs, in process, with the resources of the real definitions."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from prepaid_pipeline import context
from prepaid_pipeline.audit import seals
from prepaid_pipeline.context import Context
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from prepaid_pipeline.settings.load import Settings
from tests.world import TODAY, World

FIRST_OP = {
    "open_renewals": "open_service_plans",
    "match_payments": "match_payment_records",
    "settle_renewals": "claim_verified_plans",
    "close_quality_checks": "close_decided_quality_checks",
    "expire_service_plans": "expire_ended_plans",
    "send_emails": "send_outbox",
    "dun_unpaid_invoices": "remind_unpaid_invoices",
    "remind_overdue_tasks": "remind_of_overdue_tasks",
    "anchor_audit_log": "anchor_newest_seal",
    "verify_audit_log": "verify_whole_log",
}
REAL = "SELECT first_real_day FROM prepaid.installation"
Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def run(location: dg.RepositoryDefinition) -> Run:
    def run(job: str, as_of: date | str | None = TODAY, **how: Any) -> dg.ExecuteInProcessResult:
        config = {"ops": {FIRST_OP[job]: {"config": {"as_of": as_of and str(as_of)}}}}
        return location.get_job(job).execute_in_process(run_config=config, **how)

    return run


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two plans each: every job asks Context.of for its context."""
    original = Context.of

    def of(*args: Any, **kwargs: Any) -> Context:
        return original(*args, **{"batch_size": 2} | kwargs)

    monkeypatch.setattr(context.Context, "of", of)


def reported(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, int]]:
    """Op -> the numbers it reported, added up over its batches."""
    numbers: dict[str, dict[str, int]] = {}
    for event in result.filter_events(lambda e: e.event_type_value == "STEP_OUTPUT"):
        op = numbers.setdefault(event.node_name, {})
        for key, value in event.step_output_data.metadata.items():
            op[key] = op.get(key, 0) + value.value
    return numbers


def runs_of(result: dg.ExecuteInProcessResult, op: str) -> int:
    return len(
        result.filter_events(lambda e: e.event_type_value == "STEP_SUCCESS" and e.node_name == op)
    )


def test_the_jobs_take_a_renewal_from_due_to_expired(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "today", lambda _: date(2026, 12, 2))
    world.tax_rate("0.0725")
    world.due_renewal()
    opened = reported(run("open_renewals"))
    one = {"taken": 1, "finished": 1, "held": 0}
    assert opened.pop("open_service_plans") == {"opened": 1}
    assert opened == dict.fromkeys(steps.OPENING_STEPS, one)

    (plan,) = [
        row[0]
        for row in world.rows(
            "SELECT service_plan_id FROM prepaid.service_plans WHERE origin = 'pipeline'"
        )
    ]
    world.record(world.invoice(plan))
    assert reported(run("match_payments")) == {
        "match_payment_records": {"matched": 1, "parked": 0, "superseded": 0, "waiting": 0}
    }
    world.approve(plan)
    settled = reported(run("settle_renewals"))
    assert settled.pop("claim_verified_plans") == {}
    assert settled == dict.fromkeys(steps.SETTLING_STEPS, one)
    assert reported(run("send_emails")) == {
        "send_outbox": {"sent": 1, "failed": 0, "retried": 0, "dropped": 0, "unknown": 0}
    }
    (mail,) = (tmp_path / "home" / "mail").rglob("*.eml")
    assert b"INV-2026-000001" in mail.read_bytes()

    decisions.decide(
        world.engine,
        world.officer("test_care", "customer_success"),
        [world.task(plan, "quality_check")],
        "approve",
        None,
    )
    assert reported(run("close_quality_checks")) == {
        "close_decided_quality_checks": {"passed": 1, "failed": 0}
    }
    assert seals.unsealed(world.engine) == 0
    # Both terms have ended a month later: the imported one and the renewal.
    assert reported(run("expire_service_plans", "2026-12-02")) == {
        "expire_ended_plans": {"expired": 2}
    }
    assert world.status(plan) == "Expired"


@pytest.mark.usefixtures("small_batches")
def test_a_run_takes_batch_after_batch(world: World, run: Run) -> None:
    world.tax_rate("0.0725")
    for _ in range(5):
        world.due_renewal()
    opening = run("open_renewals")
    assert runs_of(opening, "create_invoices") == 3
    assert reported(opening)["create_invoices"] == {"taken": 5, "finished": 5, "held": 0}
    plans = world.open()
    assert [world.invoice(plan) for plan in plans] == [f"INV-2026-00000{n}" for n in range(1, 6)]
    world.pay_and_approve(*plans)
    settling = run("settle_renewals")
    assert runs_of(settling, "assign_quality_checks") == 3
    assert reported(settling)["assign_quality_checks"] == {"taken": 5, "finished": 5, "held": 0}
    assert {world.status(plan) for plan in plans} == {"Active"}
    assert world.rows("SELECT count(*), count(finished_at) FROM prepaid.batches") == [(6, 6)]


def test_held_plans_are_counted_where_they_stop(world: World, run: Run) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    world.due_renewal(email=None)
    world.due_renewal(country="DE")
    numbers = reported(run("open_renewals"))
    assert numbers["open_service_plans"] == {"opened": 3}
    assert numbers["retrieve_subscription_details"] == {"taken": 3, "finished": 2, "held": 1}
    assert numbers["mark_plans_processing"] == {"taken": 2, "finished": 2, "held": 0}
    assert numbers["calculate_invoice_totals"] == {"taken": 2, "finished": 1, "held": 1}
    assert numbers["assign_payment_verification"] == {"taken": 1, "finished": 1, "held": 0}


def test_unpaid_invoices_are_dunned_on_one_business_date(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREPAID_REMINDER_DAYS", "2")
    monkeypatch.setenv("PREPAID_PAYMENT_DAYS", "5")
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    for day, reminded, cancelled in (("03", 0, 0), ("04", 1, 0), ("07", 0, 0), ("08", 0, 1)):
        assert reported(run("dun_unpaid_invoices", f"2026-11-{day}")) == {
            "remind_unpaid_invoices": {"reminded": reminded},
            "cancel_unpaid_plans": {"cancelled": cancelled},
        }
    assert world.status(plan) == "Cancelled"
    assert world.rows(
        "SELECT actor, as_of FROM prepaid.audit_log WHERE event = 'payment_not_received'"
    ) == [("dun_unpaid_invoices", date(2026, 11, 8))]


def test_with_nothing_to_do_every_job_succeeds_and_writes_nothing(world: World, run: Run) -> None:
    before = world.dump()
    for job in FIRST_OP:
        result = run(job)
        assert result.success
        # dagster.yaml limits live runs by this tag, and the sensors look for it.
        assert result.dagster_run.tags["prepaid/queue"] == job
    assert world.dump() == before


def test_as_of_is_the_business_date_of_everything(world: World, run: Run) -> None:
    world.tax_rate("0.0725")
    world.due_renewal(ends_on=date(2024, 3, 10))
    assert reported(run("open_renewals", "2024-03-02")) == {}
    result = run("open_renewals", "2024-03-05")
    assert reported(result)["open_service_plans"] == {"opened": 1}
    assert world.rows("SELECT invoice_number, issued_on FROM prepaid.invoices") == [
        ("INV-2024-000001", date(2024, 3, 5))
    ]
    assert world.rows("SELECT opened_on FROM prepaid.tasks") == [(date(2024, 3, 5),)]
    assert world.rows(
        "SELECT DISTINCT actor, run_id, as_of FROM prepaid.audit_log"
        " WHERE event LIKE 'service_plan%'"
    ) == [("open_renewals", result.run_id, date(2024, 3, 5))]

    before = world.dump()
    assert reported(run("open_renewals", "2024-03-05")) == {}
    assert world.dump() == before


def test_without_as_of_it_is_today(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "today", lambda _: date(2025, 5, 5))
    world.tax_rate("0.0725")
    world.subscription(world.customer(), world.plan(), started_on=date(2025, 5, 5))
    run("open_renewals", None)
    assert world.rows("SELECT issued_on FROM prepaid.invoices") == [(date(2025, 5, 5),)]
    assert world.sql(REAL) == date(2025, 5, 5)


@pytest.mark.parametrize("job", FIRST_OP)
def test_no_job_works_for_a_day_that_has_not_come(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    monkeypatch.setattr(Settings, "today", lambda _: TODAY)
    world.tax_rate("0.0725")
    world.due_renewal()
    before = world.dump()
    said = "2026-11-03 is after today, 2026-11-02 in UTC: no job works for a day that has not come"
    with pytest.raises(dg.Failure, match=said) as failed:
        run(job, "2026-11-03")
    assert failed.value.allow_retries is False
    assert world.dump() == before


def test_a_schedules_day_is_real_and_one_from_the_launchpad_is_not(world: World, run: Run) -> None:
    run("expire_service_plans")
    assert world.sql(REAL) is None
    run("expire_service_plans", tags={"dagster/schedule_name": "expire_service_plans_daily"})
    assert world.sql(REAL) == TODAY
    run("expire_service_plans", "2026-11-01", tags={"dagster/schedule_name": "it"})
    assert world.sql(REAL) == TODAY


def test_a_bad_as_of_fails_the_run_and_says_why(world: World, run: Run) -> None:
    with pytest.raises(ValueError, match=r"31\.02\.2026"):
        run("open_renewals", "31.02.2026")
    result = run("open_renewals", "31.02.2026", raise_on_error=False)
    assert not result.success
    assert world.rows("SELECT * FROM prepaid.batches") == []


def test_the_audit_log_is_sealed_and_anchored(
    world: World, run: Run, location: dg.RepositoryDefinition, tmp_path: Path
) -> None:
    world.sql("INSERT INTO prepaid.audit_log (event, entity, actor) VALUES ('x', 'y', 'z')")
    sealed = location.get_job("seal_audit_log").execute_in_process()
    assert reported(sealed) == {"seal_entries": {"sealed": 1}}
    assert run("anchor_audit_log").success
    (file,) = (tmp_path / "home" / "reports" / "anchors").iterdir()
    assert file.name == "2026-11-02-seal-000001.txt"
    assert "audit seal 1" in file.read_text()
