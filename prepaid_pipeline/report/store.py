"""Where reports are kept: a folder per month under PREPAID_REPORTS, each file whole or absent.

``2026-10/report.html`` and ``report.json`` are the latest version; closed versions stay beside them
as ``report-v1.html`` and so on; ``index.html`` lists the months.
"""

import os
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings import Settings

INDEX = "index.html"
_READABLE = 0o644


@dataclass(frozen=True)
class Store:
    """The report folder."""

    root: Path

    @classmethod
    def of(cls, settings: Settings) -> "Store":
        """The installation's store. Raises SettingError for anything but a local path."""
        if "://" in settings.reports:
            raise SettingError(
                f"PREPAID_REPORTS={settings.reports!r}: reports are written to a local folder;"
                " give a path such as /srv/reports"
            )
        return cls(Path(settings.reports).expanduser().resolve())

    def path(self, month: date, kind: str, version: int | None = None) -> Path:
        """The path of a report of ``kind`` html or json; without a version, the latest one's."""
        suffix = "" if version is None else f"-v{version}"
        return self.root / f"{month:%Y-%m}" / f"report{suffix}.{kind}"

    def read(self, name: str) -> bytes | None:
        """A file's content, by its name below the root; None if there is no such file."""
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def names(self, folder: str) -> list[str]:
        """The names of the files of a folder below the root, sorted; none if it is not there."""
        found = (self.root / folder).glob("[!.]*")
        return sorted(f"{folder}/{path.name}" for path in found)

    def keep(self, name: str, content: bytes) -> bool:
        """Write a file that is never changed; False if it is there already.

        Raises SettingError if it is there with another content, or cannot be written.
        """
        there = self.read(name)
        if there is not None and there != content:
            raise SettingError(
                f"PREPAID_REPORTS: {self.root / name} has another content than was written:"
                " somebody changed it. Find out who, and keep it."
            )
        return self.write(self.root / name, content.decode())

    def write(self, path: Path, text: str) -> bool:
        """Write the file whole or not at all; False if it has this very text already.

        Raises SettingError when the folder cannot be written to.
        """
        content = text.encode()
        try:
            if path.is_file() and path.read_bytes() == content:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
        except OSError as error:
            raise SettingError(
                f"PREPAID_REPORTS: {path} cannot be written: {error.strerror}. The figures are in"
                " the database; the files are written by the next run."
            ) from error
        return True


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(_READABLE)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
