"""Logs: one line per event, which say which plan, batch and run, and nothing about a person."""

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from prepaid_pipeline import logs
from prepaid_pipeline.operations.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.settings.load import Settings
from tests.operations.service.conftest import Command
from tests.world import World

SAMPLE = Path(__file__).parents[3] / "prepaid_pipeline" / "operations" / "sample"


def events(output: str) -> list[dict[str, Any]]:
    """Every line must be JSON."""
    return [json.loads(line) for line in output.splitlines()]


def test_a_whole_drain_tells_no_name_and_no_address(prepaid: Command, engine: Engine) -> None:
    assert prepaid("import", str(SAMPLE))[0] == 0
    # Data that the database itself will refuse, quoting it.
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE prepaid.invoices ADD CHECK (customer_id % 97 <> 3)"))
    code, _, errors = prepaid("drain", "--as-of", "2026-11-02", log_format="json")
    assert code == 0
    found = events(errors)
    steps = {event["step"] for event in found if event["event"] == "step"}
    assert {"create_invoices", "assign_payment_verification"} <= steps
    (first, *_) = (event for event in found if event["event"] == "step")
    assert set(first) >= {
        "at",
        "level",
        "logger",
        "batch_id",
        "job",
        "seconds",
        "taken",
        "finished",
        "held",
    }
    held = [event for event in found if event["event"] == "plan held"]
    assert held
    assert all(event["service_plan_id"] and event["batch_id"] for event in held)
    with (SAMPLE / "customers.csv").open(encoding="utf-8") as file:
        customers = list(csv.DictReader(file))
    assert len(customers) >= 300
    for customer in customers:
        assert customer["name"] not in errors
        assert not customer["email"] or customer["email"] not in errors


def test_text_on_a_terminal_is_quiet_and_short(prepaid: Command, world: World) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    code, _, errors = prepaid("drain", "--as-of", "2026-11-02")
    assert (code, errors) == (0, "")


def test_a_line_stays_a_line_and_an_error_keeps_its_data_to_itself() -> None:
    logger = logging.Logger("prepaid_pipeline.test")
    said: list[str] = []
    for as_json in (True, False):
        handler = logging.Handler()
        handler.setFormatter(logs.EventFormatter(as_json))
        handler.emit = lambda record, h=handler: said.append(h.format(record))  # type: ignore[method-assign,misc]
        logger.addHandler(handler)
    try:
        raise ValueError("Key (email)=(ada@example.com) already exists")
    except ValueError:
        logger.exception("two\nlines")
    as_json, as_text = said
    assert "ada" not in as_json + as_text
    assert "\n" not in as_json + as_text
    found = json.loads(as_json)
    assert (found["error"], found["event"]) == ("ValueError", "two\nlines")
    assert found["where"].startswith("test_logs.py:")
    assert "error prepaid_pipeline.test: two lines error=ValueError where=test_logs.py:" in as_text


def test_what_fails_is_said_with_its_duration(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("prepaid_pipeline.test")
    caplog.set_level(logging.INFO, "prepaid_pipeline.test")
    with pytest.raises(KeyError), logs.timed(logger, "step", batch_id=7):
        raise KeyError("ada@example.com")
    (record,) = caplog.records
    fields = record.prepaid_fields  # type: ignore[attr-defined]
    assert (record.getMessage(), record.levelname) == ("step failed", "ERROR")
    assert (fields["batch_id"], fields["error"]) == (7, "KeyError")
    assert fields["seconds"] >= 0


_RUN = """
import multiprocessing, sys
sys.argv = ["code_server", "none.sock"]
import dagster as dg
sys.modules["__mp_main__"] = None
import importlib.util, runpy
runpy.run_module("prepaid_pipeline.operations.service.code_server", run_name="__mp_main__")
from prepaid_pipeline.definitions import build_defs
job = build_defs().get_repository_def().get_job("open_renewals")
config = {"ops": {"open_service_plans": {"config": {"as_of": "2026-11-02"}}}}
assert job.execute_in_process(config).success
"""


def test_the_process_of_a_run(settings: Settings, world: World, tmp_path: Path) -> None:
    """As multiprocessing starts it, under that name."""
    world.tax_rate("0.0725")
    world.due_renewal(email="ada@example.com")
    environ = {**os.environ, **prepare_dagster_home(settings), "PREPAID_LOG_FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = events(done.stderr)
    runs = {event["run_id"] for event in found if event.get("dagster_event") == "RUN_SUCCESS"}
    assert len(runs) == 1
    steps = [event for event in found if event["event"] == "step"]
    assert len(steps) == 5
    assert {event["run_id"] for event in steps} == runs
    assert {event["job"] for event in found if "job" in event} == {"open_renewals"}
    assert "ada@" not in done.stderr
