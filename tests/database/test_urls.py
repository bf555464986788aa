"""What libpq, its programs and people get of a database's URL."""

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, make_url

from prepaid_pipeline.database import urls

PASSWORD = " p+a%s$w'o\\r\"d/@:?#&=€ "


@pytest.mark.parametrize("password", [PASSWORD, "plain", "***", "a b", "100%25", None])
def test_all_read_the_same(password: str | None) -> None:
    url = URL.create(
        "postgresql+psycopg",
        "the owner",
        password,
        "db.example.com",
        6432,
        "our data",
        {"options": "-cwork_mem=8MB -cjit=off", "sslmode": "require"},
    )
    plain = url.set(drivername="postgresql")
    assert make_url(urls.for_libpq(url)) == plain
    expected = {
        "user": "the owner",
        "host": "db.example.com",
        "port": "6432",
        "dbname": "our data",
        "options": "-cwork_mem=8MB -cjit=off",
        "sslmode": "require",
    }
    secret = {"password": password} if password else {}
    assert conninfo_to_dict(urls.for_libpq(url)) == expected | secret
    assert conninfo_to_dict(urls.parameters(url)) == expected | secret
    where, environment = urls.for_program(url)
    assert conninfo_to_dict(where) == expected
    assert environment.get("PGPASSWORD") == password


def test_a_password_behind_the_question_mark() -> None:
    url = make_url("postgresql:///data?host=/run/postgresql&user=me&password=secret&sslpassword=x")
    where, environment = urls.for_program(url)
    assert "secret" not in where
    assert environment["PGPASSWORD"] == "secret"
    assert urls.shown(url) == "postgresql:///data?host=%2Frun%2Fpostgresql&user=me"


def test_what_stands_behind_the_question_mark_can_be_replaced() -> None:
    """The desk has a user and a password of its own, a drill a database."""
    url = urls.normal(
        make_url("postgresql://x@h/y?user=me&password=a%2Fb&dbname=d&sslmode=require")
    )
    assert url == make_url("postgresql://me:a%2Fb@h/d?sslmode=require")


def test_what_people_see() -> None:
    url = make_url("postgresql+psycopg://me:secret@db.example.com:6432/data?options=-cjit%3Doff")
    assert urls.shown(url) == "postgresql://me@db.example.com:6432/data"


def test_several_hosts() -> None:
    url = make_url("postgresql://me:secret@/data?host=one:5432&host=two:5433")
    said = conninfo_to_dict(urls.parameters(url))
    assert (said["host"], said["port"]) == ("one,two", "5432,5433")


def test_pinning_twice_is_pinning_once() -> None:
    url = make_url("postgresql://me@h/d?options=-cwork_mem%3D8MB%20-cTimeZone%3DEurope/Berlin")
    once = urls.pinned(url)
    assert urls.pinned(once) == once
    assert str(once.query["options"]).startswith("-cwork_mem=8MB -cTimeZone=Europe/Berlin -c")
