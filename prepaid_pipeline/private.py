"""Files of our own are for the user who runs us: 0600, their directories 0700, under any umask."""

import os
from pathlib import Path

from prepaid_pipeline.errors import SettingError

_UMASK = 0o077
_OTHERS = 0o077


def begin() -> None:
    """Let this process, and all that it starts, create files for its own user only."""
    os.umask(_UMASK)


def make_directory(directory: Path) -> None:
    """Create a directory and those above it that are missing, all of them 0700."""
    missing = [directory, *directory.parents]
    for path in reversed([path for path in missing if not path.exists()]):
        path.mkdir(mode=0o700, exist_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a new or half-written file that only its owner may read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def require_closed(home: Path) -> None:
    """Raise SettingError if other users can read or change what is in ``home``.

    They may pass through a home (0711) whose embedded server runs as a user of its own.
    """
    mode = home.stat().st_mode
    open_ones = [home] if mode & 0o066 else []
    if mode & 0o011:
        open_ones += [
            path
            for path in sorted(home.iterdir())
            if not path.is_symlink() and path.stat().st_mode & _OTHERS
        ]
    if open_ones:
        named = ", ".join(str(path) for path in open_ones)
        raise SettingError(
            f"Other users of this machine may read or change files in PREPAID_HOME: {named}. They"
            f" hold customers' data. Run: chmod go-rwx {' '.join(map(str, open_ones))}"
        )
