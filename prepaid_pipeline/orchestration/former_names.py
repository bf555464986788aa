"""Schedules that once had another name: whether one is switched on is kept when it is renamed."""

from dagster import DagsterInstance
from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.scheduler.instigation import InstigatorState

# Former name -> name. The runs that were made under the former one stay in the history.
SCHEDULES = {"chase_unpaid_invoices_daily": "dun_unpaid_invoices_daily"}


def keep_schedule_states(instance: DagsterInstance) -> int:
    """Give each renamed schedule what Dagster stored of it under its former name; how many.

    Otherwise one that a person switched off would run again, because all are on by default.
    """
    kept = 0
    for former in instance.all_instigator_state():
        name = SCHEDULES.get(former.name)
        if name is None:
            continue
        origin = RemoteInstigatorOrigin(former.origin.repository_origin, name)
        state = InstigatorState(
            origin, former.instigator_type, former.status, former.instigator_data
        )
        if instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is None:
            instance.add_instigator_state(state)
            kept += 1
        instance.delete_instigator_state(former.instigator_origin_id, former.selector_id)
    return kept
