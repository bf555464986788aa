"""Launching through the guard: who may, and whose name it has."""

from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.execution.backfill import BulkActionStatus
from starlette.requests import HTTPConnection

from prepaid_pipeline.operations.dagster_ui.visitors import VISITOR
from prepaid_pipeline.operations.dagster_ui.visitors import Visitor as Who
from tests.operations.dagster_ui.conftest import JSON, TOKEN, House, Visitor

# Dagster's own code uses what it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources`")
LAUNCH = """
mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
AGAIN = """
mutation($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
FILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
FILL_AGAIN = """
mutation($params: ReexecutionParams!) { reexecutePartitionBackfill(reexecutionParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
FORGED = [{"key": "user", "value": "somebody else"}]


def data(visitor: Visitor, query: str, headers: dict[str, str] | None = None, **params: Any) -> Any:
    answer = visitor.ask(query, headers, params=params)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["data"].values()
    return found


def quick(**more: Any) -> dict[str, Any]:
    selector = {
        "repositoryLocationName": "small",
        "repositoryName": "__repository__",
        "jobName": "quick",
    }
    return {"selector": selector, "executionMetadata": {"tags": FORGED}, **more}


def months() -> dict[str, Any]:
    return {
        "assetSelection": [{"path": ["figures"]}],
        "partitionNames": ["2026-01-01", "2026-02-01"],
        "tags": FORGED,
    }


def tags(house: House, run_id: str) -> dict[str, str]:
    run = house.instance.get_run_by_id(run_id)
    assert run is not None
    (stored,) = house.world.rows(
        "SELECT value FROM dagster.run_tags WHERE run_id = :r AND key = 'user'", r=run_id
    )
    assert stored == run.tags["user"] or stored == (run.tags["user"],)
    return dict(run.tags)


def test_a_run_and_a_re_run_have_the_name_of_whoever_launched_it(house: House) -> None:
    engineer, name = house.visitor("engineering"), house.person("engineering")
    launched = data(engineer, LAUNCH, **quick())
    assert launched["__typename"] == "LaunchRunSuccess", launched
    first = launched["run"]["runId"]
    assert tags(house, first)["user"] == name
    run = house.instance.get_run_by_id(first)
    assert run is not None
    assert run.status == DagsterRunStatus.QUEUED
    house.instance.report_run_failed(run)

    program = house.visitor()
    again = data(
        program,
        AGAIN,
        {**JSON, "authorization": f"Bearer {TOKEN}"},
        parentRunId=first,
        strategy="ALL_STEPS",
        extraTags=FORGED,
        useParentRunTags=True,
    )
    assert again["__typename"] == "LaunchRunSuccess", again
    assert tags(house, again["run"]["runId"])["user"] == "token"


def test_a_backfill_and_one_again(house: House) -> None:
    engineer, name = house.visitor("engineering"), house.person("engineering")
    made = data(engineer, FILL, **months())
    assert made["__typename"] == "LaunchBackfillSuccess", made
    backfill = house.instance.get_backfill(made["backfillId"])
    assert backfill is not None
    assert backfill.tags["user"] == name
    house.instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))
    again = data(
        house.visitor(),
        FILL_AGAIN,
        {**JSON, "dagster-cloud-api-token": TOKEN},
        parentRunId=made["backfillId"],
        strategy="ALL_STEPS",
    )
    assert again["__typename"] == "LaunchBackfillSuccess", again
    second = house.instance.get_backfill(again["backfillId"])
    assert second is not None
    assert second.tags["user"] == "token"


@pytest.mark.parametrize("team", ["finance", "customer_success", "leadership"])
def test_others_read_and_launch_nothing(house: House, team: str) -> None:
    reader = house.visitor(team)
    before = house.instance.get_runs_count(), len(house.instance.get_backfills())
    assert reader.ask("{ version }").json()["data"] == {"version": ""}
    permissions = reader.ask("{ permissions { permission value } }").json()["data"]["permissions"]
    assert len(permissions) > 15
    assert not any(found["value"] for found in permissions)
    for query, params in ((LAUNCH, quick()), (FILL, months())):
        refused = reader.ask(query, params=params)
        assert refused.status_code == 403
        assert "Only the team engineering" in refused.text
    posted = reader.client.post(
        "/report_asset_materialization/figures",
        json={},
        headers={"origin": "http://127.0.0.1:3000"},
    )
    assert posted.status_code == 403
    assert (house.instance.get_runs_count(), len(house.instance.get_backfills())) == before


def test_dagster_itself_refuses_them_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either of the two lines is enough."""
    from prepaid_pipeline.operations.dagster_ui import workspace

    monkeypatch.setattr(workspace, "may_not", lambda *_: None)
    reader = house.visitor("finance")
    for query, params in ((LAUNCH, quick()), (FILL, months())):
        assert data(reader, query, **params)["__typename"] == "UnauthorizedError"


def test_an_engineer_may_everything_and_within_a_reload_too(house: House) -> None:
    engineer = house.visitor("engineering")
    answer = engineer.ask("{ permissions { permission value } }").json()["data"]["permissions"]
    assert {"permission": "launch_pipeline_execution", "value": True} in answer
    scope = {"type": "http", "headers": [], VISITOR: Who("ann", True, None)}
    with house.workspace.create_request_context(HTTPConnection(scope)) as context:
        assert not context.read_only
        # As reload_workspace and reload_code_location make one.
        assert not house.workspace.create_request_context().read_only
    for unseen in (None, HTTPConnection({"type": "http", "headers": []}), "something else"):
        assert house.workspace.create_request_context(unseen).read_only


def test_what_a_person_reports_has_their_name(house: House) -> None:
    engineer = house.visitor("engineering")
    posted = engineer.client.post(
        "/report_asset_materialization/figures",
        json={"partition": "2026-01-01"},
        headers={"origin": "http://127.0.0.1:3000"},
    )
    assert posted.status_code == 200, posted.text
    (event,) = house.instance.fetch_materializations(dg.AssetKey("figures"), limit=1).records
    materialisation = event.asset_materialization
    assert materialisation is not None
    assert materialisation.tags is not None
    assert materialisation.tags["user"] == house.person("engineering")


def test_what_nobody_launches_here_keeps_its_tags(house: House) -> None:
    """The daemon's runs of a backfill, and whatever else is not of this process."""
    from tests.operations.dagster_ui.definitions import quick

    run = house.instance.create_run_for_job(quick, tags={"user": "as it was"})
    assert run.tags["user"] == "as it was"
