"""A schedule that was renamed is on or off as it was under its former name."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from prepaid_pipeline.definitions import build_defs
from prepaid_pipeline.orchestration import former_names

LOCATION = ManagedGrpcPythonEnvCodeLocationOrigin(
    LoadableTargetOrigin(module_name="prepaid_pipeline.definitions"), "prepaid_pipeline"
)
((FORMER, NAME),) = former_names.SCHEDULES.items()


def state(name: str, status: InstigatorStatus) -> InstigatorState:
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(LOCATION, "__repository__"), name)
    data = ScheduleInstigatorData("0 10 * * *", start_timestamp=1.0)
    return InstigatorState(origin, InstigatorType.SCHEDULE, status, data)


def stored(instance: dg.DagsterInstance) -> dict[str, InstigatorStatus]:
    return {found.name: found.status for found in instance.all_instigator_state()}


@pytest.mark.parametrize("status", [InstigatorStatus.STOPPED, InstigatorStatus.RUNNING])
def test_what_a_person_switched_stays(tmp_path: Path, status: InstigatorStatus) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert former_names.keep_schedule_states(instance) == 0
        instance.add_instigator_state(state(FORMER, status))
        instance.add_instigator_state(state("open_renewals_daily", InstigatorStatus.STOPPED))
        assert former_names.keep_schedule_states(instance) == 1
        expected = {NAME: status, "open_renewals_daily": InstigatorStatus.STOPPED}
        assert stored(instance) == expected
        assert former_names.keep_schedule_states(instance) == 0
        assert stored(instance) == expected


def test_what_was_switched_under_the_new_name_is_newer(tmp_path: Path) -> None:
    """Also after a death between storing the new state and deleting the former one."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_instigator_state(state(FORMER, InstigatorStatus.RUNNING))
        instance.add_instigator_state(state(NAME, InstigatorStatus.STOPPED))
        assert former_names.keep_schedule_states(instance) == 0
        assert stored(instance) == {NAME: InstigatorStatus.STOPPED}


def test_the_new_name_is_a_schedule_and_the_former_one_is_not() -> None:
    names = {found.name for found in build_defs().get_repository_def().schedule_defs}
    assert NAME in names
    assert FORMER not in names
