"""A database with the base folder, shared by the tests of a module that must not change it."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, Engine

from prepaid_pipeline.database import connections
from tests.conftest import TEMPLATE
from tests.importer import folders


@pytest.fixture(scope="module")
def shared_engine(cluster: URL) -> Iterator[Engine]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    url = cluster.render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        engine = connections.engine_for(cluster.set(database=name))
        yield engine
        engine.dispose()
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def base_engine(shared_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    reports = folders.take(shared_engine, tmp_path_factory.mktemp("base"), dict(folders.BASE))
    assert {report.status for report in reports.values()} == {"imported"}
    return shared_engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
