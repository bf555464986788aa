"""A data engineer selects months in the Dagster UI and launches a backfill, in a real browser."""

import getpass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright
from sqlalchemy import Select, make_url, select, table, text

from prepaid_pipeline.database import connections as db
from tests.desk.chromium import CHROMIUM, needs_chromium
from tests.operations.service.running import Up, started, wait

SAMPLE = Path(__file__).parents[3] / "prepaid_pipeline" / "operations" / "sample"
# All months of the sample's history.
FIRST, LAST = "2024-11", "2026-10"
_LOOK = (
    '{runsOrError(filter: {pipelineName: "materialise_mrr"})'
    " {... on Runs {results {status tags {key value}}}}"
    " partitionBackfillsOrError {... on PartitionBackfills {results {status}}}}"
)
_TABLES = (
    "mrr",
    "mrr_movements",
    "mrr_bridge",
    "plan_activations",
    "payment_reversals",
    "credit_notes_issued",
)


def look(up: Up) -> tuple[list[Any], list[str]]:
    """The runs over months, and the states of the backfills."""
    data = up.ask(_LOOK)
    backfills = [found["status"] for found in data["partitionBackfillsOrError"]["results"]]
    return data["runsOrError"]["results"], backfills


def launch(up: Up, months: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(up.link())
        page.goto(f"http://127.0.0.1:{up.port}/locations/prepaid_pipeline/jobs/materialise_mrr")
        page.get_by_role("button", name="Materialize all").click()
        months_box = page.get_by_placeholder("ex: 20")
        months_box.fill(months)
        months_box.press("Enter")
        page.get_by_role("button", name="Launch backfill").click()
        wait(lambda: bool(look(up)[1]), 60)
        browser.close()


def _everything(name: str) -> Select[Any]:
    return select(text("*")).select_from(table(name, schema="revenue"))


def figures(up: Up) -> dict[str, list[Any]]:
    url = up.command("db", "url").stdout.strip()
    engine = db.engine_for(make_url(url))
    with engine.connect() as connection:
        found = {name: sorted(map(str, connection.execute(_everything(name)))) for name in _TABLES}
    engine.dispose()
    return found


@pytest.mark.long
@needs_chromium
def test_a_backfill_from_the_page_is_one_run_with_the_figures_of_the_command(
    tmp_path: Path,
) -> None:
    with started(tmp_path / "output") as up:
        assert up.command("import", str(SAMPLE)).returncode == 0
        launch(up, f"[{FIRST}...{LAST}]")
        wait(lambda: look(up)[1] == ["COMPLETED_SUCCESS"], 240)
        runs, _ = look(up)
        asked = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in runs]
        of_page = [tags for tags in asked if "dagster/backfill" in tags]
        assert len(of_page) == 1
        assert of_page[0]["user"] == f"operator {getpass.getuser()}"
        assert of_page[0]["dagster/asset_partition_range_start"] == FIRST
        assert of_page[0]["dagster/asset_partition_range_end"] == LAST
        from_page = figures(up)
        assert len(from_page["mrr_bridge"]) >= 24
        assert up.command("backfill", FIRST, LAST).returncode == 0
        assert figures(up) == from_page
        assert Path(up.command("report", LAST).stdout.strip()).is_file()
