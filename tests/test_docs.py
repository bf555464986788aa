"""The documentation names what there is, and nothing that there is not."""

import re
from functools import cache
from pathlib import Path

import click
import dagster as dg
import pytest

from prepaid_pipeline.cli.main import COMMANDS, prepaid
from prepaid_pipeline.database import queries
from prepaid_pipeline.definitions import build_defs

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# No settings: 'prepaid' computes the first for Dagster, the second is for the tests of faults.
COMPUTED = {"PREPAID_DAGSTER_URL", "PREPAID_FAULT_SEED"}
MAKE_TARGETS = ("install", "demo", "test", "test-long", "reliability", "up", "lint", "bench")


@cache
def documentation() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def missing(names: set[str], pattern: str = r"(?<![\w-]){}(?![\w-])") -> list[str]:
    """The names that no page says as a word of its own."""
    return sorted(
        name for name in names if not re.search(pattern.format(re.escape(name)), documentation())
    )


def settings() -> set[str]:
    sources = ("settings/load.py", "settings/mail.py", "desk/configuration.py")
    return {
        name
        for source in sources
        for name in re.findall(
            r'"(PREPAID_[A-Z_]+)"', (ROOT / "prepaid_pipeline" / source).read_text(encoding="utf-8")
        )
    }


def commands() -> dict[str, click.Command]:
    """Every command and sub-command as it is typed after ``prepaid``."""
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = prepaid.get_command(click.Context(prepaid), name)
        assert command is not None
        if isinstance(command, click.Group):
            subs = command.list_commands(click.Context(command))
            found |= {f"{name} {sub}": command.commands[sub] for sub in subs}
        else:
            found[name] = command
    return found


@cache
def location() -> dg.RepositoryDefinition:
    return build_defs().get_repository_def()


def test_settings() -> None:
    assert len(settings()) >= 11
    assert missing(settings()) == []
    assert set(re.findall(r"PREPAID_[A-Z_]+[A-Z]", documentation())) - COMPUTED <= settings()


def test_commands_and_their_options() -> None:
    assert missing({f"prepaid {name}" for name in commands()}) == []
    options = {
        option
        for command in commands().values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert missing(options, r"(?<![\w-]){}(?![\w-])") == []


def test_no_command_that_does_not_exist() -> None:
    """In code, inline or in a block, ``prepaid`` is followed by a command."""
    code = re.findall(r"^(?:    |\$ ).*|`[^`]+`|(?s:```.*?```)", documentation(), re.MULTILINE)
    typed = {
        word for piece in code for word in re.findall(r"(?:^|[\s`/])prepaid ([a-z][a-z-]*)", piece)
    }
    assert typed - set(COMMANDS) == set()


def test_jobs_sensors_and_schedules() -> None:
    jobs = {name for name in location().job_names if not name.startswith("__")}
    sensors = {sensor.name for sensor in location().sensor_defs}
    schedules = {schedule.name for schedule in location().schedule_defs}
    assert missing(jobs | sensors | schedules) == []


def test_assets() -> None:
    assets = {key.path[-1] for key in location().asset_graph.materializable_asset_keys}
    assert missing(assets) == []


def hold_reasons() -> set[str]:
    """The reason codes of every statement that holds a plan."""
    statements, codes = 0, list[str]()
    for path in queries.sql_directory().rglob("*.sql"):
        if path.parent.name == "migrations":
            continue
        sql = path.read_text(encoding="utf-8")
        statements += sql.count("INSERT INTO prepaid.holds")
        codes += re.findall(
            r"INSERT INTO prepaid\.holds \(service_plan_id, reason_code, text\)\s+"
            r"SELECT (?:DISTINCT ON \([^)]*\) )?[\w.]+, '(\w+)'",
            sql,
        )
    assert len(codes) == statements
    return set(codes)


def test_reasons_for_holds() -> None:
    assert missing(hold_reasons()) == []


def test_checks() -> None:
    checks = {
        name.removeprefix("operations/invariants/")
        for name in queries.names("operations/invariants")
    }
    assert missing(checks) == []


@pytest.mark.parametrize("target", MAKE_TARGETS)
def test_make_targets(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert missing({f"make {target}"}) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        target = "".join(link).partition("#")[0]
        if target and not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
