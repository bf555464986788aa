"""Every command: --help, exit codes, and errors that say what to do instead of a traceback."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from sqlalchemy import URL, text

from prepaid_pipeline.cli.main import COMMANDS, FORMER_NAMES
from prepaid_pipeline.cli.main import prepaid as group
from prepaid_pipeline.database import connections
from tests.cli.conftest import Prepaid

WITH_DATE = ("due", "drain", "check")


def every_command() -> list[tuple[str, ...]]:
    """All commands and their sub-commands, as they are typed."""
    found: list[tuple[str, ...]] = [()]
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, sub) for sub in command.list_commands(click.Context(command))]
    return found


def test_every_command_helps(typed: Prepaid) -> None:
    for command in every_command():
        for flag in ("--help", "-h"):
            outcome = typed(*command, flag)
            assert (outcome.code, outcome.err) == (0, ""), command
            assert outcome.out.startswith(f"Usage: {' '.join(('prepaid', *command))}"), command
            # More than the usage line: what it does.
            assert len(outcome.out.splitlines()) > 4, command
    listed = typed("--help").out
    for name in COMMANDS:
        assert f"\n  {name} " in listed


def test_version(typed: Prepaid) -> None:
    assert typed("--version").out.startswith("prepaid, version ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("tasks", "nonsense"), "No such command 'nonsense'"),
        (("due", "--nonsense"), "No such option"),
        (("due", "extra"), "Got unexpected extra argument"),
        (("story",), "Missing argument 'PLAN'"),
        *(
            ((name, "--as-of", day), f"'{day}' is not a date: expected YYYY-MM-DD")
            for name in WITH_DATE
            for day in ("yesterday", "2026-02-30", "02.11.2026")
        ),
    ],
)
def test_wrong_usage_is_2(typed: Prepaid, arguments: tuple[str, ...], said: str) -> None:
    outcome = typed(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert "Usage: prepaid" in outcome.err


READING = (
    ("due",),
    ("drain",),
    ("check",),
    ("tasks", "list"),
    ("held", "list"),
    ("story", "1"),
    ("user", "add", "somebody", "--team", "finance"),
)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://prepaid@127.0.0.1:1/prepaid", "The database cannot be reached: "),
        ("postgresql://prepaid@/prepaid?host=/nowhere", "The database cannot be reached: "),
        ("mysql://localhost/prepaid", "PREPAID_DATABASE_URL is for mysql: expected postgresql://"),
        ("not a url", "PREPAID_DATABASE_URL cannot be read: expected postgresql://"),
    ],
)
def test_a_database_that_cannot_be_reached(
    typed: Prepaid, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setenv("PREPAID_DATABASE_URL", url)
    for command in READING:
        outcome = typed(*command)
        assert (outcome.code, outcome.out) == (1, ""), command
        assert outcome.err.startswith(f"prepaid: {said}"), command
        assert len(outcome.err.splitlines()) == 1, outcome.err


def test_a_database_that_does_not_exist(
    prepaid: Prepaid, monkeypatch: pytest.MonkeyPatch, database_url: URL
) -> None:
    missing = database_url.set(database="prepaid_nowhere")
    monkeypatch.setenv("PREPAID_DATABASE_URL", missing.render_as_string(hide_password=False))
    outcome = prepaid("due")
    assert outcome.code == 1
    assert 'database "prepaid_nowhere" does not exist' in outcome.err
    assert "Check PREPAID_DATABASE_URL" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_database_without_our_tables(prepaid: Prepaid, database_url: URL) -> None:
    engine = connections.engine_for(database_url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA prepaid CASCADE"))
    engine.dispose()
    for command in READING:
        outcome = prepaid(*command)
        assert (outcome.code, outcome.out) == (1, ""), command
        assert outcome.err == (
            "prepaid: The database has no tables of this product yet. Run 'prepaid migrate'.\n"
        )


def test_a_bad_setting(typed: Prepaid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREPAID_LEAD_DAYS", "a week")
    outcome = typed("due")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        "prepaid: PREPAID_LEAD_DAYS='a week': expected a whole number from 0 to 366\n"
    )


def test_the_installed_command(tmp_path: Path) -> None:
    """The script itself, in a process of its own: exit codes and no traceback."""
    script = Path(sys.executable).with_name("prepaid")
    environment = {
        "PREPAID_HOME": str(tmp_path),
        "PREPAID_DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
    }
    for arguments, code in ((["--version"], 0), (["nonsense"], 2), (["due"], 1)):
        ended = subprocess.run(
            [script, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_command_under_its_former_name(typed: Prepaid) -> None:
    """It does the same, and no help lists it."""
    for former, name in FORMER_NAMES.items():
        assert typed(former, "--help").code == 0
        assert (
            typed(former, "--help").out.partition("\n")[2]
            == (typed(name, "--help").out.partition("\n")[2])
        )
        assert f"\n  {former} " not in typed("--help").out
