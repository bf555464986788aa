"""The command line as a person runs it: arguments in, exit code and the two streams out."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from prepaid_pipeline.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Prepaid = Callable[..., Outcome]


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Prepaid:
    """Runs ``prepaid …`` through the installed entry point; there is no database."""
    monkeypatch.setenv("PREPAID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREPAID_DATABASE_URL", "postgresql://nobody@/nothing?host=/nowhere")

    # Run by "python -m pytest", click would take that for the program's name.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["prepaid", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return Outcome(int(left.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def prepaid(typed: Prepaid, database_url: URL, monkeypatch: pytest.MonkeyPatch) -> Prepaid:
    """Runs ``prepaid …`` on the test's database."""
    monkeypatch.setenv("PREPAID_DATABASE_URL", database_url.render_as_string(hide_password=False))
    return typed
