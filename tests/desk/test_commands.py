"""What an administrator types: passwords, sessions, the desk by itself, and what doctor says."""

import io
import json
import socket

import pytest

from prepaid_pipeline.operations.service import doctor
from prepaid_pipeline.people import accounts
from tests.desk.conftest import PASSWORD
from tests.mail.conftest import free_port
from tests.operations.service.conftest import Command, prepaid
from tests.world import World

__all__ = ["prepaid"]
NAME = "test_officer"


@pytest.fixture(autouse=True)
def _person(world: World) -> None:
    accounts.add(world.engine, NAME, "finance")


def test_a_password(world: World, prepaid: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def password(text: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return prepaid("user", "password", *arguments, "--stdin")

    code, said, _ = password(f"{PASSWORD}\n", NAME)
    assert (code, said) == (0, f"the password of {NAME} is set; all their sessions have ended\n")
    stored = world.sql("SELECT password_hash FROM prepaid.desk_accounts WHERE person = :n", n=NAME)
    assert stored.startswith("$argon2id$")
    assert "m=65536,t=3,p=4" in stored
    for text in ("too short", "x" * 257, ""):
        code, _, said = password(text, NAME)
        assert code == 1
        assert "a password has 12 to 256 characters" in said
    code, _, said = password(f"{PASSWORD}\n", "nobody")
    assert code == 1
    assert "there is no person 'nobody'" in said
    assert (
        world.sql("SELECT password_hash FROM prepaid.desk_accounts WHERE person = :n", n=NAME)
        == stored
    )


def test_sessions_are_ended(world: World, prepaid: Command) -> None:
    for token in (b"a" * 32, b"b" * 32):
        world.sql("SELECT prepaid.desk_open_session(:t, :n, 60, 600)", t=token, n=NAME)
    code, said, _ = prepaid("user", "sign-out", NAME)
    assert (code, said) == (0, f"2 sessions of {NAME} ended\n")
    assert prepaid("user", "sign-out", NAME)[1] == f"0 sessions of {NAME} ended\n"
    assert world.rows("SELECT * FROM prepaid.desk_session(:t)", t=b"a" * 32) == []
    assert prepaid("user", "sign-out", "nobody")[0] == 1


def test_the_desk_by_itself_says_why_it_does_not_start(prepaid: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, said = prepaid("desk", desk_port=str(port))
    assert code == 1
    assert f"Port {port} on 127.0.0.1 cannot be used for the sign-off desk" in said
    code, _, said = prepaid("desk", desk_port="off")
    assert code == 1
    assert "PREPAID_DESK_PORT is off" in said
    code, _, said = prepaid("desk", desk_host="0.0.0.0", desk_port=str(free_port()))
    assert code == 1
    assert "lets others reach the sign-off desk" in said


def test_doctor(prepaid: Command, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(doctor, "_code_location", lambda _: "not tried")

    def found(**settings: str) -> dict[str, tuple[bool, str]]:
        output = prepaid("doctor", "--json", **settings)[1]
        return {row["check"]: (row["ok"], row["text"]) for row in json.loads(output)}

    as_it_comes = found()
    assert as_it_comes["sign-off desk"] == (True, "http://127.0.0.1:3001, for this machine only")
    assert as_it_comes["sign-off desk's login"] == (True, "created when the desk starts")
    exposed = found(desk_host="0.0.0.0")
    assert not exposed["sign-off desk"][0]
    assert "PREPAID_DESK_TLS_CERT" in exposed["sign-off desk"][1]
    own = world.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    powerful = found(desk_database_url=own)
    assert not powerful["sign-off desk's login"][0]
    assert "have no rights of its own" in powerful["sign-off desk's login"][1]
