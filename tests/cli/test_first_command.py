"""The embedded database of somebody who has just installed: any command may be the first."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from prepaid_pipeline.database import connections, embedded, migrations
from prepaid_pipeline.operations.service.doctor import examine
from prepaid_pipeline.settings.load import load
from tests.conftest import fastest_directory

PREPAID = str(Path(sys.executable).parent / "prepaid")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="prepaid-first-", dir=fastest_directory()))
    folder.chmod(0o755)
    yield folder
    embedded.stop(folder)
    shutil.rmtree(folder)


def started(home: Path, *command: str) -> subprocess.Popen[str]:
    environ = os.environ | {"PREPAID_HOME": str(home), "PREPAID_TIMEZONE": "Europe/Berlin"}
    return subprocess.Popen(
        [PREPAID, *command],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_first_commands_migrate(home: Path) -> None:
    """Two at once: one does it, neither fails, and what is printed for programs is theirs alone."""
    checks = examine(load({"PREPAID_HOME": str(home)}))
    found = next(each for each in checks if each.check == "migrations")
    checks.close()
    assert (found.ok, "first command that needs" in found.text) == (True, True)
    both = [started(home, "tasks", "list", "--json") for _ in range(2)]
    said = [each.communicate(timeout=120) for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert [json.loads(out) for out, _ in said] == [[], []]
    now = f"The embedded database is at migration {migrations.newest()} now."
    assert sum(err.count(now) for _, err in said) == 1, said
    engine = connections.engine_for(make_url(str(embedded.running_url(home))))
    assert migrations.written_timezone(engine) == "Europe/Berlin"
    engine.dispose()
    assert started(home, "tasks", "list").communicate(timeout=120)[1] == ""
