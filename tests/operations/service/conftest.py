"""The command line as a user calls it, in this process."""

from collections.abc import Callable

import pytest

from prepaid_pipeline.cli import main
from prepaid_pipeline.settings.load import Settings

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prepaid(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run ``prepaid`` with arguments on the test's database: exit code, output, errors.

    Keyword arguments are settings: ``grace_days="x"`` is PREPAID_GRACE_DAYS=x.
    """

    def run(*arguments: str, **changes: str) -> tuple[int, str, str]:
        assert settings.database_url is not None
        values = {"home": str(settings.home), "database_url": settings.database_url, **changes}
        with monkeypatch.context() as patch:
            for name, value in values.items():
                patch.setenv(f"PREPAID_{name.upper()}", value)
            patch.setattr("sys.argv", ["prepaid", *arguments])
            code = 0
            try:
                main.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
