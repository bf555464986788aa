"""Finance sees at the start that no payments have come, and what that stops."""

from collections.abc import Callable

from sqlalchemy import Engine
from starlette.testclient import TestClient

from prepaid_pipeline.desk.app import build
from prepaid_pipeline.settings.desk import DeskSettings
from prepaid_pipeline.settings.load import Settings
from tests.desk.conftest import Browser
from tests.world import World

SAID = "No bank file since 20 October 2026."


def test_the_overview_says_since_when(
    world: World,
    desk_engine: Engine,
    settings: Settings,
    desk_settings: DeskSettings,
    new_person: Callable[..., str],
) -> None:
    world.record(None, "1.00", provider="Bank & Sons", occurred_at="2026-10-20T10:00Z")

    def start_page(team: str, days: int | None) -> str:
        looked_at = settings.model_copy(update={"payments_expected_days": days})
        desk = build(desk_engine, looked_at, desk_settings)
        browser = Browser(TestClient(desk, base_url="http://127.0.0.1:3001"))
        return browser.sign_in(new_person(team)).text

    for team in ("finance", "engineering"):
        page = start_page(team, 4)
        assert SAID in page
        assert "The last one came from Bank &amp; Sons. No customer is reminded" in page
    # Payment records are not customer success's to read; within the days nothing is said.
    for team, days in (("customer_success", 4), ("finance", 30), ("finance", None)):
        assert "No bank file" not in start_page(team, days)
