"""Where reports are kept: a folder per month under PREPAID_REPORTS, each file whole or absent.

``2026-10/report.html`` is the latest version, and stays the address of the month; closed versions
stay next to it as ``report-v1.html`` and so on; ``index.html`` lists the months. The folder is a
local one or any that fsspec knows (``s3://…``, ``gs://…``, ``memory://…``).
"""

import os
import tempfile
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from prepaid_pipeline import private
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.load import Settings

INDEX = "index.html"
# What a report is written as, and how the name of its file ends.
ENDINGS = {"html": "html", "pdf": "pdf", "xlsx": "xlsx", "csv": "csv.zip", "json": "json"}
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "az": "azure"}


@dataclass(frozen=True)
class Store:
    """The report folder: ``root`` in a file system ``files`` of fsspec's."""

    files: Any
    root: str

    @classmethod
    def of(cls, settings: Settings) -> "Store":
        """The installation's store. Raises SettingError for one that cannot be reached that way."""
        if "://" not in settings.reports:
            return cls.local(Path(settings.reports))
        from fsspec.core import url_to_fs

        scheme = settings.reports.partition("://")[0]
        try:
            files, root = url_to_fs(settings.reports)
        except ImportError as error:
            extra = _EXTRAS.get(scheme)
            needed = f"pip install 'prepaid-pipeline[{extra}]'" if extra else str(error)
            raise SettingError(
                f"PREPAID_REPORTS: writing to {scheme}:// needs another package: {needed}"
            ) from error
        except ValueError as error:
            raise SettingError(
                f"PREPAID_REPORTS={settings.reports!r}: expected a folder such as /srv/reports or"
                f" an address such as s3://bucket/reports: {error}"
            ) from error
        return cls(files, root.rstrip("/"))

    @classmethod
    def local(cls, folder: Path) -> "Store":
        """A store in a local folder."""
        from fsspec.implementations.local import LocalFileSystem

        return cls(LocalFileSystem(), str(folder.expanduser().resolve()))

    @property
    def is_local(self) -> bool:
        """Whether the store is a local directory, so that its files have paths."""
        return "file" in self.files.protocol

    def name(self, month: date, kind: str, version: int | None = None) -> str:
        """The file of a report of ``kind``, below the root; without a version, the latest one's."""
        suffix = "" if version is None else f"-v{version}"
        return f"{month:%Y-%m}/report{suffix}.{ENDINGS[kind]}"

    def address(self, name: str) -> str:
        """Where people and programs find a file: a path, or a URL."""
        full = f"{self.root}/{name}"
        return full if self.is_local else str(self.files.unstrip_protocol(full))

    def page(self, month: date) -> str:
        """The address of a month's latest page."""
        return self.address(self.name(month, "html"))

    def listed(self, month: date) -> set[str]:
        """The names of the files that a month has, as ``name`` gives them."""
        return set(self.names(f"{month:%Y-%m}"))

    def names(self, folder: str) -> list[str]:
        """The names of the files of a folder below the root, sorted; none if it is not there."""
        try:
            # Whoever else writes there, what is there now counts.
            found = self.files.ls(f"{self.root}/{folder}", detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        files = sorted(str(path).rpartition("/")[2] for path in found)
        return [f"{folder}/{name}" for name in files if not name.startswith(".")]

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is no such file."""
        try:
            return bytes(self.files.cat_file(f"{self.root}/{name}"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def written_at(self, name: str) -> datetime:
        """When a file was written, as the store itself records it. Raises FileNotFoundError."""
        found: datetime = self.files.modified(f"{self.root}/{name}")
        return found

    def keep(self, name: str, content: bytes) -> bool:
        """Write a file that is never changed; False if it is there already.

        Raises SettingError if it is there with another content, or cannot be written.
        """
        there = self.read(name)
        if there is not None and there != content:
            raise SettingError(
                f"PREPAID_REPORTS: {self.address(name)} does not have the content that was"
                " written: somebody changed it. Find out who, and keep it."
            )
        return self.write(name, content)

    def write(self, name: str, content: bytes) -> bool:
        """Write the file whole or not at all; False if it has this very content already.

        Raises SettingError when it cannot be written.
        """
        try:
            if self.read(name) == content:
                return False
            if self.is_local:
                _replace(Path(self.root, name), content)
            else:
                # One request: an object store shows an object when it is there as a whole.
                self.files.pipe_file(f"{self.root}/{name}", content)
        except OSError as error:
            raise SettingError(
                f"PREPAID_REPORTS: {self.address(name)} cannot be written:"
                f" {error.strerror or error}. The figures are in the database; the files are"
                " written by the next run."
            ) from error
        return True

    def probe(self) -> None:
        """Write a file and take it away. Raises SettingError, in the store's own words."""
        probe = f"{self.root}/.prepaid-doctor"
        try:
            self.files.pipe_file(probe, b"")
            self.files.rm_file(probe)
        except Exception as error:
            # Each kind of store has errors of its own, for keys, buckets and networks.
            raise SettingError(
                f"PREPAID_REPORTS: {self.address('')} cannot be written: {error}"
            ) from error


def _replace(path: Path, content: bytes) -> None:
    private.make_directory(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
