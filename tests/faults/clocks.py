"""Another time for a process and all that it starts, by libfaketime."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prepaid_pipeline.database import embedded
from tests.faults.servers import OwnServer

_PLACES = ("usr/lib/*/faketime", "usr/lib/faketime", "usr/local/lib/faketime", "opt/homebrew/lib")
_LIBRARIES = [
    str(library) for place in _PLACES for library in Path("/").glob(f"{place}/libfaketimeMT.so.1")
]
needs_faketime = pytest.mark.skipif(
    not _LIBRARIES,
    reason="libfaketime is missing. Install it (Debian, Ubuntu: apt-get install faketime).",
)


# Only the time of day: timeouts and waiting go on as they do.
_COMMON = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}


def skew(by: timedelta) -> dict[str, str]:
    """The environment of a process whose clock is so far off."""
    return _COMMON | {"LD_PRELOAD": _LIBRARIES[0], "FAKETIME": f"{int(by.total_seconds()):+d}"}


class Clock:
    """The time of all processes that have its environment: a file says it, and can change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environ = _COMMON | {
            "LD_PRELOAD": _LIBRARIES[0],
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
        }
        self.set(datetime.now(UTC))

    def set(self, moment: datetime) -> None:
        """The time that it is now; it goes on from there."""
        half = self._file.with_suffix(".half")
        half.write_text(f"{int((moment - datetime.now(UTC)).total_seconds()):+d}\n")
        half.chmod(0o644)
        half.replace(self._file)


def restart_with(mortal: OwnServer, clock: Clock) -> None:
    """The server again, with another clock."""
    mortal.stop()
    os.environ.update(clock.environ)
    try:
        embedded.start(mortal.home)
    finally:
        for name in clock.environ:
            del os.environ[name]
