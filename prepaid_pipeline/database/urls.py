"""URLs of databases as others want them: libpq and its programs, and people.

SQLAlchemy writes them for itself: what it leaves of a space, or makes of it in an option, libpq
reads otherwise; ``set(password=None)`` leaves the password, and rendered it is then ``***``.
"""

import os
from collections.abc import Mapping

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

_DRIVER = "postgresql+psycopg"
# Secrets may also stand behind the question mark: the user's, and that of a client's TLS key.
_SECRETS = ("password", "sslpassword")


# What statements and results mean, and for how long a session may work or wait: we keep some open
# on purpose, and have limits of our own where we want them.
SESSION = {
    "DateStyle": "ISO,YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "lc_numeric": "C",
    "lc_monetary": "C",
    "lc_time": "C",
    "search_path": "public",
    "row_security": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
_PINS = " ".join(f"-c{name}={value.replace(' ', chr(92) + ' ')}" for name, value in SESSION.items())
_OF_THE_SHELL = ("PGDATESTYLE", "PGTZ", "PGGEQO", "PGCLIENTENCODING", "PGOPTIONS")
# What may stand there as well, by libpq's names.
_PARTS = {"user": "username", "password": "password", "dbname": "database"}


def normal(url: URL) -> URL:
    """The URL with its user, password and database where SQLAlchemy has them, so that another one
    can be put in their place.
    """
    moved = {part: url.query[name] for name, part in _PARTS.items() if name in url.query}
    return url.difference_update_query(list(_PARTS)).set(**moved)  # type: ignore[arg-type]


def options(url: URL) -> str:
    """libpq's ``options`` of a session that has what we rely on, whatever the server, the database,
    the user, the shell and the URL itself say.
    """
    # libpq sends these after the options, and they would win.
    for name in _OF_THE_SHELL:
        os.environ.pop(name, None)
    given = url.query.get("options", "")
    before = given if isinstance(given, str) else " ".join(given)
    return f"{before.removesuffix(_PINS).strip()} {_PINS}".strip()


def pinned(url: URL) -> URL:
    """The URL with these options, for sessions that others open."""
    return url.update_query_dict({"options": options(url)})


def for_libpq(url: URL) -> str:
    """The URL, password included, as both libpq and SQLAlchemy read it."""
    rendered = url.set(drivername="postgresql").render_as_string(hide_password=False)
    place, mark, query = rendered.partition("?")
    return place.replace(" ", "%20") + mark + query.replace("+", "%20")


def parameters(url: URL) -> str:
    """libpq's parameters (``host=… user=…``), password included, for psycopg.connect."""
    return make_conninfo(**_parameters(url))


def for_program(url: URL) -> tuple[str, Mapping[str, str]]:
    """The same for a program's arguments, which everybody on the machine may read, and the
    environment that it needs: the password is in that.
    """
    given = _parameters(url)
    password = given.pop("password", None)
    return make_conninfo(**given), os.environ | ({"PGPASSWORD": password} if password else {})


def shown(url: URL) -> str:
    """The URL for people: where it is and as whom, without secrets."""
    bare = URL.create(
        "postgresql", url.username, host=url.host, port=url.port, database=url.database
    )
    query = {key: value for key, value in url.query.items() if key not in (*_SECRETS, "options")}
    return for_libpq(bare.set(query=query))


def _parameters(url: URL) -> dict[str, str]:
    own = url.set(drivername=_DRIVER)
    _, given = own.get_dialect()().create_connect_args(own)
    return {
        name: str(value) if not isinstance(value, tuple) else " ".join(value)
        for name, value in given.items()
        if value is not None
    }
