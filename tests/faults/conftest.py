"""Every test of a fault may record its figures, and have a business with workers."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.settings.load import Settings, load
from tests.faults.business import Business
from tests.faults.recorder import Recorder
from tests.faults.servers import OwnServer, own_server
from tests.faults.sink import Sink
from tests.faults.workers import Workers


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    return Recorder(request.node.nodeid)


@pytest.fixture
def seed() -> int:
    """Another one each time; it is in the figures, and PREPAID_FAULT_SEED repeats a run."""
    seed = int(os.environ.get("PREPAID_FAULT_SEED") or random.SystemRandom().randrange(10**6))
    random.seed(seed)
    return seed


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def business(engine: Engine, settings: Settings, sink: Sink) -> Business:
    business = Business(engine, settings, sink)
    business.open_for_business()
    return business


@pytest.fixture
def workers(business: Business, tmp_path: Path) -> Iterator[Workers]:
    url = business.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    common = {"url": url, "admin_url": url, "home": str(tmp_path), "smtp": business.sink.url}
    with Workers(tmp_path / "workers.log", **common) as workers:
        workers.warm_up()
        yield workers


@pytest.fixture(scope="module")
def mortal() -> Iterator[OwnServer]:
    """A server of the module's own, which may die."""
    with own_server() as mortal:
        yield mortal


@pytest.fixture(scope="module")
def mortal_business(
    mortal: OwnServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Business]:
    home = tmp_path_factory.mktemp("home")
    settings = load({"PREPAID_HOME": str(home), "PREPAID_DATABASE_URL": mortal.url})
    engine = mortal.engine()
    with Sink() as sink:
        business = Business(engine, settings, sink)
        business.open_for_business()
        yield business
    engine.dispose()


@pytest.fixture(scope="module")
def mortal_workers(mortal_business: Business, mortal: OwnServer) -> Iterator[Workers]:
    home = mortal_business.settings.home
    home.mkdir(exist_ok=True)
    common = {"url": mortal.url, "home": str(home), "smtp": mortal_business.sink.url}
    with Workers(home / "workers.log", **common) as workers:
        workers.warm_up()
        yield workers
