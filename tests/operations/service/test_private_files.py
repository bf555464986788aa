"""What others of this machine can reach: nothing of our files, and not the embedded server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prepaid_pipeline import private
from prepaid_pipeline.database import embedded
from prepaid_pipeline.errors import DatabaseNotReady, SettingError
from prepaid_pipeline.mail.transport import FileTransport
from prepaid_pipeline.operations.service import guards
from prepaid_pipeline.storage import Store


@pytest.fixture(params=[0, 0o077], ids=["umask 0", "umask 077"])
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield
    os.umask(before)


def _open(root: Path) -> list[Path]:
    return [path for path in (root, *root.rglob("*")) if path.stat().st_mode & 0o077]


@pytest.mark.usefixtures("umask")
def test_mails_and_reports_are_closed(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    FileTransport(home / "mail").send("<1@example.com>", "a@example.com", b"owed: 100.00 EUR")
    Store.local(home / "reports").write("2026-10/report.html", b"<p>100.00</p>")
    assert (home / "mail" / "1@example.com.eml").read_bytes() == b"owed: 100.00 EUR"
    assert _open(tmp_path / "deep") == []
    assert guards.home(home) == str(home)


def test_every_command_and_what_it_starts_creates_closed_files(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys\n"
        "from prepaid_pipeline.cli.main import main\n"
        "os.umask(0)\n"
        "sys.argv = ['prepaid', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "subprocess.run([sys.executable, '-c', \"open('dump', 'w').close()\"], check=True)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "dump").stat().st_mode & 0o777 == 0o600


def test_the_doctor_names_what_is_open(tmp_path: Path) -> None:
    home = tmp_path / "home"
    private.make_directory(home / "mail")
    (home / "mail").chmod(0o755)
    guards.home(home)  # nobody gets as far
    home.chmod(0o711)
    with pytest.raises(SettingError, match=r"chmod go-rwx .*/home/mail$"):
        guards.home(home)
    (home / "mail").chmod(0o700)
    guards.home(home)
    home.chmod(0o755)
    with pytest.raises(SettingError, match="chmod go-rwx"):
        guards.home(home)


def test_a_long_home_has_its_socket_where_nobody_else_gets_in(tmp_path: Path) -> None:
    home = tmp_path / ("h" * 100)
    try:
        embedded.start(home)
        url = embedded.running_url(home)
        assert url is not None
        sockets = Path(url.rpartition("?host=")[2])
        assert not sockets.is_relative_to(home)
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert str(sockets) in embedded.require_closed_socket(home)
        assert home.stat().st_mode & 0o066 == 0
        # As an earlier release left it.
        sockets.chmod(0o777)
        with pytest.raises(DatabaseNotReady, match="other users of this machine"):
            embedded.require_closed_socket(home)
        embedded.start(home)
        embedded.require_closed_socket(home)
    finally:
        embedded.stop(home)
    # Somebody else was there first: a link, or a directory of their own.
    sockets.rmdir()
    sockets.symlink_to(tmp_path)
    try:
        with pytest.raises(DatabaseNotReady, match="belongs to another user"):
            embedded.start(home)
    finally:
        sockets.unlink()
