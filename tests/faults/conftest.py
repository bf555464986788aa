"""Every test of a fault may record its figures."""

import pytest

from tests.faults.recorder import Recorder


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    return Recorder(request.node.nodeid)
