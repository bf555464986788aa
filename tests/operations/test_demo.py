"""The demo plays the whole process: its people decide, and plans come out of it active."""

from datetime import date

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.operations import demo, invariants
from prepaid_pipeline.settings.load import Settings
from tests.world import World, context


def test_plans_are_activated(
    engine: Engine, settings: Settings, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = demo.DAYS[:3]
    monkeypatch.setattr(demo, "DAYS", days)
    for role in ("FINANCE", "FINANCE_LEAD", "CUSTOMER_SUCCESS"):
        # Roles belong to the server: other tests have their own.
        team = "customer_success" if role == "CUSTOMER_SUCCESS" else "finance"
        monkeypatch.setattr(demo, role, world.officer(f"test_demo_{role.lower()}", team))
    monkeypatch.setattr(demo.accounts, "add", lambda *_: None)
    said: list[str] = []
    demo.play(engine, settings.model_copy(update={"smtp_url": None}), said.append)
    plans = {outcome.outcome: outcome.plans for outcome in demo.outcomes(engine)}
    assert plans["activated as renewal"] > 20
    assert plans["activated as new"] > 0
    assert " 0 decisions" not in said[-1]
    assert {date.fromisoformat(line[:10]) for line in said[1:]} == set(days)
    found = [result for result in invariants.run(engine, context(days[-1])) if result.findings]
    assert [(result.name, result.findings[:3]) for result in found] == []
