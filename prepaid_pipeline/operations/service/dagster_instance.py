"""Dagster's instance: its home, its configuration, and its storage in the product's database."""

import os
from pathlib import Path

from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline import private
from prepaid_pipeline.database import connections, queries, urls
from prepaid_pipeline.errors import DatabaseNotReady, SettingError
from prepaid_pipeline.settings.load import Settings

SCHEMA = "dagster"
# By another command at the same moment.
_MADE_MEANWHILE = ("23505", "42P06")


def workspace_file() -> Path:
    """Dagster's workspace.yaml: inside the installed package, or next to it in a checkout."""
    package = Path(__file__).parents[2]
    packaged = package / "workspace.yaml"
    return packaged if packaged.exists() else package.parent / "workspace.yaml"


def storage_url(url: URL) -> str:
    """Dagster's storage in the product's database: schema ``dagster``, driver psycopg 2.

    dagster-postgres cannot use psycopg 3, which SQLAlchemy takes for a plain postgresql://.
    """
    own = urls.pinned(url).set(drivername="postgresql+psycopg2")
    options = f"{own.query['options']} -csearch_path={SCHEMA}"
    return own.update_query_dict({"options": options}).render_as_string(hide_password=False)


def prepare_dagster_home(settings: Settings) -> dict[str, str]:
    """Write dagster.yaml, make the storage's schema, and return the environment Dagster needs.

    The environment names everything absolutely: Dagster's processes work in another directory.
    Starts the embedded server if that is the database. Raises DatabaseNotReady, and
    SettingError for a PREPAID_HOME that cannot be written.
    """
    url = connections.url(settings)
    engine = connections.engine_for(url)
    try:
        try:
            _make_schema(engine)
        except DBAPIError as error:
            if connections.sqlstate(error) not in _MADE_MEANWHILE:
                raise
    except DBAPIError as error:
        raise DatabaseNotReady(
            f"Dagster's schema cannot be made: {error.orig}. The user needs CREATE on the database."
        ) from error
    finally:
        engine.dispose()
    try:
        _copy(Path(__file__).with_name("dagster.yaml"), settings.dagster_home)
    except OSError as error:
        raise SettingError(
            f"{settings.dagster_home} cannot be written: {error.strerror}. Set PREPAID_HOME to a"
            " directory that this user may write to."
        ) from error
    reports = settings.reports
    return {
        "DAGSTER_HOME": str(settings.dagster_home),
        # A backfill reports each month of each asset: together, not on a connection for each.
        "DAGSTER_EVENT_BATCH_SIZE": "500",
        # Seconds from an error of a daemon, such as a lost database, until it continues.
        "DAGSTER_DAEMON_CORE_LOOP_EXCEPTION_SLEEP_INTERVAL": "1",
        "PREPAID_DAGSTER_URL": storage_url(url),
        "PREPAID_HOME": str(settings.home),
        "PREPAID_DATABASE_URL": url.render_as_string(hide_password=False),
        "PREPAID_REPORTS": reports
        if "://" in reports
        else str(Path(reports).expanduser().resolve()),
    }


def _make_schema(engine: Engine) -> None:
    with engine.begin() as connection:
        queries.statement("operations/service/dagster_schema").execute(connection, {})


def _copy(source: Path, directory: Path) -> None:
    private.make_directory(directory)
    half = directory / f".{source.name}.{os.getpid()}.tmp"
    private.write(half, source.read_bytes())
    half.replace(directory / source.name)
