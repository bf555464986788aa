"""In a real browser: who may launch a run does so as ever, and who may not finds no way to."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.desk.chromium import needs_chromium, served
from tests.mail.conftest import free_port
from tests.operations.dagster_ui.conftest import House
from tests.operations.dagster_ui.test_attack import browser, sign_in
from tests.operations.service.running import wait

__all__ = ["browser"]
FINE = (101, 200, 204, 206, 303, 304, 307, 404)


def at_the_launchpad(page: Page, home: str, name: str) -> list[str]:
    """Signed in there; what was refused from then on."""
    page.set_viewport_size({"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    refused: list[str] = []
    sign_in(page, home, name)
    # (Dagster looks for its icon at the root, whatever the path is.)
    page.on("response", lambda r: refused.append(r.url) if r.status not in FINE else None)
    page.goto(f"{home}/locations/small/jobs/quick/playground")
    return refused


@pytest.mark.long
@needs_chromium
@pytest.mark.parametrize("path", ["", "/below/a/path"])
def test_a_run_from_the_page_has_the_persons_name(
    house: House, browser: Callable[[], BrowserContext], path: str
) -> None:
    port, name = free_port(), house.person("engineering")
    home = f"http://127.0.0.1:{port}{path}"
    with served(house.app(ui_url=home), port):
        page = browser().new_page()
        refused = at_the_launchpad(page, home, name)
        before = house.instance.get_runs_count()
        page.get_by_role("button", name="Launch Run").click()
        wait(lambda: house.instance.get_runs_count() > before, 60)
        run = house.instance.get_runs(limit=1)[0]
        assert run.job_name == "quick"
        assert run.tags["user"] == name
        # The page of the run, which its websocket keeps up to date.
        page.goto(f"{home}/runs/{run.run_id}")
        page.get_by_text("Queued").first.wait_for()
        house.instance.report_run_failed(run, "ended by the test")
        page.get_by_text("ended by the test").first.wait_for()
        page.goto(f"{home}/runs")
        page.get_by_text(name).first.wait_for()
        assert refused == []

        reader = browser().new_page()
        at_the_launchpad(reader, home, house.person("finance"))
        reader.get_by_role("heading", name="quick").wait_for()
        reader.wait_for_load_state("networkidle")
        assert reader.get_by_role("button", name="Launch Run").count() == 0
        reader.context.close()
        page.context.close()
