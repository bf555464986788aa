"""One database for the tests of a module; each starts with an empty landing table."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Engine, text

from prepaid_pipeline.database import connections
from tests.conftest import fresh_database


@pytest.fixture(scope="module")
def module_url(cluster: URL) -> Iterator[URL]:
    with fresh_database(cluster) as url:
        yield url


@pytest.fixture(scope="module")
def module_engine(module_url: URL) -> Iterator[Engine]:
    engine = connections.engine_for(module_url)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(module_engine: Engine) -> Engine:
    with module_engine.begin() as connection:
        connection.execute(text("DELETE FROM prepaid.transactions"))
    return module_engine


@pytest.fixture
def database_url(module_url: URL, engine: Engine) -> URL:
    """For the command; emptied by ``engine``."""
    return module_url
