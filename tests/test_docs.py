"""The documentation names what there is, and nothing that there is not."""

import re
from datetime import UTC
from functools import cache
from pathlib import Path

import click
import dagster as dg
import pytest

from prepaid_pipeline.billing.providers import formats
from prepaid_pipeline.cli.main import COMMANDS, FORMER_NAMES, prepaid
from prepaid_pipeline.database import queries
from prepaid_pipeline.definitions import build_defs
from prepaid_pipeline.importer.files import files
from prepaid_pipeline.settings.desk import DeskSettings
from prepaid_pipeline.settings.load import GONE, Settings

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
STEPS, SCHEMA = ROOT / "sql" / "steps", ROOT / "sql" / "schema"
WORDS = {8: "eight", 9: "nine", 10: "ten"}
# No settings: 'prepaid' computes the first for Dagster, the second is for the tests of faults.
COMPUTED = {"PREPAID_DAGSTER_URL", "PREPAID_FAULT_SEED"}
MAKE_TARGETS = (
    "install",
    "demo",
    "test",
    "test-faults",
    "test-long",
    "reliability",
    "up",
    "lint",
    "bench",
)


@cache
def documentation() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def missing(names: set[str], pattern: str = r"(?<![\w-]){}(?![\w-])") -> list[str]:
    """The names that no page says as a word of its own."""
    return sorted(
        name for name in names if not re.search(pattern.format(re.escape(name)), documentation())
    )


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next one of the same depth or less."""
    text = (ROOT / page).read_text(encoding="utf-8")
    after = text.split(f"\n## {heading}\n")[1]
    return after.partition("\n## ")[0]


def settings() -> set[str]:
    return set(Settings.variables()) | set(DeskSettings.variables())


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
    assert (
        set(re.findall(r"PREPAID_[A-Z_]+[A-Z]", documentation())) - COMPUTED - set(GONE)
        <= settings()
    )


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
    assert typed - set(COMMANDS) - set(FORMER_NAMES) == set()


def test_jobs_sensors_and_schedules() -> None:
    jobs = {name for name in location().job_names if not name.startswith("__")}
    sensors = {sensor.name for sensor in location().sensor_defs}
    schedules = {schedule.name for schedule in location().schedule_defs}
    assert missing(jobs | sensors | schedules) == []


def test_assets() -> None:
    assets = {key.path[-1] for key in location().asset_graph.materializable_asset_keys}
    assert missing(assets) == []


def test_formats_of_payment_files() -> None:
    """The names that --format takes are described where the formats are."""
    page = (ROOT / "docs" / "payments-import.md").read_text(encoding="utf-8")
    for found in formats.FORMATS:
        assert f"`{found.name}`" in page
    command = commands()["payments import"]
    (option,) = (found for found in command.params if found.name == "file_format")
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == set(formats.BY_NAME)


def hold_reasons() -> dict[str, str]:
    """Code -> advice, as the rows of prepaid.hold_reasons are written."""
    schema = queries.read("schema/46_holds")
    rows = schema.partition("INSERT INTO prepaid.hold_reasons")[2].partition(";\n")[0]
    found = re.findall(
        r"\('(\w+)', (?:true|false), (?:true|false),\s+('.*?')\)(?:,\n|$)", rows, re.DOTALL
    )
    return {
        code: re.sub(r"'\s+'", "", advice).strip("'").replace("''", "'") for code, advice in found
    }


def test_reasons_for_holds() -> None:
    """With the advice that the database has."""
    told = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", documentation(), re.MULTILINE))
    assert len(hold_reasons()) > 10
    for code, advice in hold_reasons().items():
        assert told.get(code, "").replace("`", "") == advice, code


def test_each_reason_is_held_for() -> None:
    """The codes of every statement that holds a plan."""
    statements, codes = 0, list[str]()
    for path in queries.sql_directory().rglob("*.sql"):
        if path.parent.name == "migrations":
            continue
        sql = path.read_text(encoding="utf-8")
        statements += sql.count("INSERT INTO prepaid.holds ")
        codes += re.findall(
            r"INSERT INTO prepaid\.holds \(service_plan_id, reason_code, text\)\s+"
            r"SELECT (?:DISTINCT ON \([^)]*\) )?[\w.]+, '(\w+)'",
            sql,
        )
    assert len(codes) == statements
    assert set(codes) == hold_reasons().keys()


def test_checks() -> None:
    """What ``prepaid check`` prints, which is the first line of each file."""
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^- `(\d\d_\w+)`: (.+)$", page, re.MULTILINE))
    assert told == {
        name.removeprefix("operations/invariants/"): queries.read(name)
        .splitlines()[0]
        .removeprefix("-- ")
        for name in queries.names("operations/invariants")
    }


@pytest.mark.parametrize("target", MAKE_TARGETS)
def test_make_targets(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert missing({f"make {target}"}) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        target, _, anchor = "".join(link).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """What one can link to on a page, as GitHub makes it from the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    """A path is told from the root, from ``prepaid_pipeline/``, or with a part of it in capitals."""
    folders = ("sql", "tests", "docs", "deploy", "scripts", "assets", "sensors", "prepaid_pipeline")
    packages = tuple(path.name for path in (ROOT / "prepaid_pipeline").iterdir() if path.is_dir())
    for path in re.findall(r"`([\w.*/-]+/[\w.*/-]*)`", page.read_text(encoding="utf-8")):
        if path.split("/")[0] not in (*folders, *packages) or re.search("[A-Z]{2}", path):
            continue
        roots = (ROOT, ROOT / "prepaid_pipeline")
        found = [*roots[0].glob(path), *roots[1].glob(path), *roots[1].glob(f"{path}.py")]
        assert found, f"{page.name} names {path}"


def test_the_steps_are_those_of_the_folder() -> None:
    drawn = re.findall(
        r"\b(\d\d_\w+(?:\.sql|/))", section("docs/architecture.md", "Where things are")
    )
    there = [f"{path.name}/" if path.is_dir() else path.name for path in STEPS.iterdir()]
    assert sorted(drawn) == sorted(there)
    table = section("docs/architecture.md", "The service plan is the process")
    assert re.findall(r"^\| (\d+) \|", table, re.MULTILINE) == [str(n) for n in range(14)]
    graph = location().asset_graph
    monthly = {
        key.path[-1]
        for key in graph.materializable_asset_keys
        if graph.get(key).group_name == "revenue"
    }
    (row,) = re.findall(r"^\| 12 \| assets ([^|]+)\|", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == monthly


def test_the_number_of_import_files() -> None:
    assert f"reads {WORDS[len(files(UTC))]} kinds of CSV file" in documentation()


def test_the_glossary_names_what_there_is() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    schema = "\n".join(path.read_text(encoding="utf-8") for path in SCHEMA.glob("*.sql"))
    tables = set(re.findall(r"`((?:prepaid|revenue)\.\w+)`", glossary))
    made = set(re.findall(r"CREATE (?:TABLE|VIEW|FUNCTION) ((?:prepaid|revenue)\.\w+)", schema))
    assert len(tables) > 30
    assert tables - made == set()
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", glossary, re.MULTILINE)
    assert len(words) == len(set(words)) > 60
