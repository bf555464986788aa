"""The desk's own login to the database is made, kept, and has no rights; it serves over TLS."""

import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import ProgrammingError

from prepaid_pipeline.desk.login import own_login
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.people import accounts
from prepaid_pipeline.settings.desk import DeskSettings, load
from prepaid_pipeline.settings.load import Settings
from tests.mail.conftest import free_port
from tests.world import World


def test_made_once_with_a_password_that_is_kept(
    world: World, settings: Settings, desk_settings: DeskSettings
) -> None:
    made = own_login(settings, desk_settings)
    kept = settings.home / "desk_password"
    assert kept.stat().st_mode & 0o077 == 0
    assert made.password == kept.read_text().strip()
    assert own_login(settings, desk_settings) == made
    stored = world.sql("SELECT rolpassword FROM pg_authid WHERE rolname = :n", n=made.username)
    assert stored.startswith("SCRAM-SHA-256$")
    # Its name is this database's own: another one on the server has another.
    assert made.username not in (None, "prepaid_desk")
    # As a backup of this database leaves it on a new server.
    world.sql(f"ALTER ROLE {made.username} NOLOGIN")
    assert own_login(settings, desk_settings) == made
    # Left empty by a process that died.
    kept.write_text("")
    assert own_login(settings, desk_settings).password not in ("", None)


def test_what_it_may_not(world: World, desk_engine: Engine) -> None:
    accounts.add(world.engine, "test_officer", "finance")
    for statement in (
        "SELECT * FROM prepaid.tasks",
        "SELECT * FROM prepaid.payment_verifications",
        "SELECT * FROM prepaid.customers",
        "SELECT * FROM prepaid.desk_accounts",
        "SELECT * FROM prepaid.desk_sessions",
        "SELECT * FROM revenue.report_versions",
        "SELECT prepaid.decide_tasks(ARRAY[1::bigint], 'approved')",
        "SELECT prepaid.release_holds(1, 'x')",
        "SELECT prepaid.set_password('test_officer', 'x')",
        "SELECT prepaid.set_disabled('test_officer', false)",
        "CREATE TABLE prepaid.x ()",
        "SET ROLE postgres",
        "UPDATE prepaid.tasks SET note = 'x'",
    ):
        with pytest.raises(ProgrammingError), desk_engine.begin() as connection:
            connection.execute(text(statement))
    with desk_engine.begin() as connection:
        connection.execute(text("SET LOCAL ROLE test_officer"))
        connection.execute(text("SELECT * FROM prepaid.payment_verifications"))


@pytest.mark.parametrize(
    "right",
    [
        "GRANT UPDATE ON prepaid.tasks TO {0}",
        "GRANT finance TO {0}",
        "ALTER ROLE {0} SUPERUSER",
        "REVOKE desk FROM {0}",
    ],
)
def test_a_login_with_rights_is_refused(
    world: World, settings: Settings, desk_url: URL, right: str
) -> None:
    name = f"odd_login_{abs(hash(right)) % 10**8}"
    world.sql(f"DROP ROLE IF EXISTS {name}")
    world.sql(f"CREATE ROLE {name} LOGIN IN ROLE desk")
    try:
        given = desk_url.set(username=name, password=None).render_as_string()
        desk = load({"PREPAID_DESK_DATABASE_URL": given})
        assert own_login(settings, desk).username == name
        world.sql(right.format(name))
        with pytest.raises(SettingError, match="must be in the role desk and have no rights"):
            own_login(settings, desk)
    finally:
        world.sql(f"DROP OWNED BY {name}")
        world.sql(f"DROP ROLE {name}")


def test_a_login_that_is_not_there(settings: Settings, desk_url: URL) -> None:
    given = desk_url.set(username="nobody_at_all", password=None).render_as_string()
    with pytest.raises(SettingError, match="'nobody_at_all' cannot connect to the database"):
        own_login(settings, load({"PREPAID_DESK_DATABASE_URL": given}))
    with pytest.raises(SettingError, match="PREPAID_DESK_DATABASE_URL cannot be read"):
        own_login(settings, load({"PREPAID_DESK_DATABASE_URL": "nonsense"}))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@pytest.fixture
def serve(database_url: URL, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """The desk in a process of its own, as ``prepaid up`` starts it."""
    running: list[subprocess.Popen[str]] = []

    def serve(**environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "prepaid_pipeline.desk.serve"],
            env={
                **os.environ,
                "PREPAID_HOME": str(tmp_path / "home"),
                "PREPAID_DATABASE_URL": database_url.render_as_string(hide_password=False),
                **environ,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield serve
    for process in running:
        process.terminate()
        process.communicate(timeout=20)


def test_over_tls(
    serve: Callable[..., subprocess.Popen[str]], certificate: tuple[Path, Path]
) -> None:
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    process = serve(
        PREPAID_DESK_PORT=str(port),
        PREPAID_DESK_URL=url,
        PREPAID_DESK_SECRET="x" * 32,
        PREPAID_DESK_TLS_CERT=str(certificate[0]),
        PREPAID_DESK_TLS_KEY=str(certificate[1]),
    )
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    stop_by = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/sign-in", context=trusted, timeout=5) as page:
                assert "<h1>Sign in</h1>" in page.read().decode()
                assert page.headers["strict-transport-security"]
                assert "__Host-desk_visitor=" in page.headers["set-cookie"]
                assert "Secure" in page.headers["set-cookie"]
            return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < stop_by
            time.sleep(0.2)


def test_behind_a_proxy(serve: Callable[..., subprocess.Popen[str]]) -> None:
    port = free_port()
    process = serve(
        PREPAID_DESK_PORT=str(port),
        PREPAID_DESK_URL="https://desk.example.com",
        PREPAID_DESK_SECRET="x" * 32,
        PREPAID_DESK_PROXY="127.0.0.1",
    )

    def ask(**headers: str) -> tuple[int, str]:
        client = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            client.request("GET", "/sign-in", headers=headers)
            answer = client.getresponse()
            return answer.status, answer.read().decode()
        finally:
            client.close()

    stop_by = time.monotonic() + 60
    while True:
        try:
            status, page = ask(**{"Host": "desk.example.com", "X-Forwarded-Proto": "https"})
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < stop_by
            time.sleep(0.2)
    assert status == 200
    assert "<h1>Sign in</h1>" in page
    status, page = ask(Host="desk.example.com")
    assert status == 421
    assert "send X-Forwarded-Proto: https" in page
    assert ask(**{"Host": "evil.example.com", "X-Forwarded-Proto": "https"})[0] == 400


def test_others_are_not_let_in_without_tls(serve: Callable[..., subprocess.Popen[str]]) -> None:
    process = serve(PREPAID_DESK_HOST="0.0.0.0", PREPAID_DESK_PORT=str(free_port()))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("prepaid desk: PREPAID_DESK_HOST='0.0.0.0' lets others reach")
    assert "Traceback" not in said
