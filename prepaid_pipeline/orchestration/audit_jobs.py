"""The jobs of the audit log: sealing what no batch has sealed, and the daily anchor."""

import dagster as dg

from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.mail.anchor_mail import send_anchor
from prepaid_pipeline.orchestration.ops import BusinessDate
from prepaid_pipeline.orchestration.renewal_jobs import queued
from prepaid_pipeline.orchestration.resources import Database

_FINDINGS_SAID = 5


@dg.op(description="Seals the entries that are not sealed yet.", tags={"dagster/kind": "sql"})
def seal_entries(context: dg.OpExecutionContext, database: Database) -> dg.Output[None]:  # noqa: ARG001
    """What people decided by SQL, and what was written while somebody else was sealing."""
    return dg.Output(None, metadata={"sealed": seals.seal(database.engine(), wait=True)})


@dg.graph
def seal_audit_log_graph() -> None:
    """Seals the audit entries that have no seal yet."""
    seal_entries()


@dg.op(description="Copies the newest seal outside the database.", tags={"dagster/kind": "python"})
def anchor_newest_seal(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> dg.Output[None]:
    """In a file of the day in the report store, and by mail to PREPAID_ANCHOR_TO."""
    day = config.context(context, database).as_of
    made = anchors.anchor(database.engine(), database.settings(), day)
    if made is None:
        return dg.Output(None, metadata={"anchored": "the audit log is empty"})
    return dg.Output(
        None,
        metadata={
            "seal": made.seal.seal_number,
            "sha256": made.seal.seal_hash,
            "file": made.name,
            "mailed": send_anchor(database.settings(), day, made.seal),
        },
    )


@dg.graph
def anchor_audit_log_graph() -> None:
    """The newest seal of the audit log is copied outside the database."""
    anchor_newest_seal()


@dg.op(
    description="Recomputes the seals of the audit log and compares them with the anchors.",
    tags={"dagster/kind": "sql"},
)
def verify_whole_log(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> dg.Output[None]:
    """Fails, and so alerts, if anything was changed: the first findings are named."""
    day = config.context(context, database).as_of
    context.log.info(f"asked for {day}: the whole log, whatever the date")
    known = anchors.stored(database.settings())
    found = seals.verify(database.engine(), known)
    if found:
        said = "\n".join(finding.text for finding in found[:_FINDINGS_SAID])
        raise dg.Failure(
            f"The audit log was changed ({len(found)} findings); 'prepaid audit verify' has all:"
            f"\n{said}"
        )
    return dg.Output(None, metadata={"anchors": len(known)})


@dg.graph
def verify_audit_log_graph() -> None:
    """The audit log is compared with its seals and anchors."""
    verify_whole_log()


seal_audit_log = queued("seal_audit_log", seal_audit_log_graph)
anchor_audit_log = queued("anchor_audit_log", anchor_audit_log_graph)
verify_audit_log = queued("verify_audit_log", verify_audit_log_graph)

AUDIT_JOBS = (seal_audit_log, anchor_audit_log, verify_audit_log)
