"""The jobs of the audit log: sealing what no batch has sealed."""

import dagster as dg

from prepaid_pipeline import audit
from prepaid_pipeline.jobs import QUEUE_TAG
from prepaid_pipeline.resources import Database


@dg.op(description="Seals the entries that are not sealed yet.", tags={"dagster/kind": "sql"})
def seal_entries(context: dg.OpExecutionContext, database: Database) -> dg.Output[None]:  # noqa: ARG001
    """What people decided by SQL, and what was written while somebody else was sealing."""
    return dg.Output(None, metadata={"sealed": audit.seal(database.engine(), wait=True)})


@dg.graph(description="What is in the audit log and in no seal is sealed.")
def seal_audit_log_graph() -> None:
    """One op."""
    seal_entries()


seal_audit_log = seal_audit_log_graph.to_job(
    name="seal_audit_log",
    description=seal_audit_log_graph.description,
    executor_def=dg.in_process_executor,
    tags={QUEUE_TAG: "seal_audit_log", "dagster/retry_strategy": "ALL_STEPS"},
)

AUDIT_JOBS = (seal_audit_log,)
