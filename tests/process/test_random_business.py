"""Random business, all invariants after each event; a thousand runs in make test-long."""

import pytest
from hypothesis import HealthCheck, Phase, seed
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import URL

from tests.process.business import Business

PARTS = 8


def play(cluster: URL, runs: int, part: int) -> None:
    settings = hypothesis_settings(
        max_examples=runs,
        stateful_step_count=30,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    Business.cluster = cluster
    run_state_machine_as_test(seed(part)(Business), settings=settings)  # type: ignore[no-untyped-call]


def test_a_few_runs(cluster: URL) -> None:
    play(cluster, 3, 0)


@pytest.mark.long
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_a_thousand_runs(cluster: URL, part: int) -> None:
    play(cluster, 1000 // PARTS, part)
