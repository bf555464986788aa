"""PostgreSQL's own programs: those of the machine, or of the embedded server's package."""

import re
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import URL

from prepaid_pipeline.database import embedded, urls
from prepaid_pipeline.errors import PrepaidError


class BackupFailed(PrepaidError):  # noqa: N818
    """The backup or its restore failed."""


def find(program: str, at_least: int) -> Path:
    """``program`` of a version not older than the server's, ``at_least`` (its major version).

    Raises BackupFailed if there is none.
    """
    installed = shutil.which(program)
    shipped = embedded.programs() / program
    for path in (Path(installed or shipped), shipped):
        if path.exists() and _major(path) >= at_least:
            return path
    raise BackupFailed(
        f"There is no {program} of PostgreSQL {at_least} or newer. Install PostgreSQL's client"
        f" programs of that version and put {program} on the PATH."
    )


def run(program: Path, database: URL, *arguments: str) -> None:
    """Run a client program on a database; the password goes by the environment.

    Raises BackupFailed with what the program said last.
    """
    where, environment = urls.for_program(urls.pinned(database))
    done = subprocess.run(
        [program, *arguments, "--dbname", where],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise BackupFailed(f"{program.name} failed: {'; '.join(said[:3]) or done.returncode}")


def _major(program: Path) -> int:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"(\d+)", said.stdout)
    return int(found[1]) if found else 0
