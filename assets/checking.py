"""Rules and their findings as Dagster's asset checks."""

from collections.abc import Iterator, Sequence

import dagster as dg

from prepaid_pipeline.revenue.rules import Suite
from prepaid_pipeline.revenue.validation import Finding


def check_specs(suites: Sequence[Suite], *, blocking: bool) -> list[dg.AssetCheckSpec]:
    """One check per rule, named as the rule."""
    return [
        dg.AssetCheckSpec(
            rule.name,
            asset=suite.asset,
            description=rule.says,
            blocking=blocking and not rule.warning,
        )
        for suite in suites
        for rule in suite.rules
    ]


def check_results(findings: Sequence[Finding]) -> Iterator[dg.AssetCheckResult]:
    """One result per finding, with a few failing rows."""
    for finding in findings:
        severity = (
            dg.AssetCheckSeverity.WARN if finding.rule.warning else dg.AssetCheckSeverity.ERROR
        )
        metadata: dict[str, dg.MetadataValue] = {
            "failing rows": dg.MetadataValue.int(finding.failing)
        }
        if finding.months:
            metadata["months"] = dg.MetadataValue.text(", ".join(finding.months))
        if finding.sample:
            metadata["sample"] = dg.MetadataValue.md(_table(finding.sample))
        yield dg.AssetCheckResult(
            passed=finding.passed,
            asset_key=finding.asset,
            check_name=finding.rule.name,
            severity=severity,
            description=finding.rule.says if finding.passed else f"{finding}.",
            metadata=metadata,
        )


def report_failures(context: dg.AssetExecutionContext, findings: Sequence[Finding]) -> bool:
    """Log what fails; True if nothing may be published."""
    for finding in findings:
        if not finding.passed:
            context.log.log("ERROR" if finding.stops else "WARNING", str(finding))
    return any(finding.stops for finding in findings)


def _table(rows: Sequence[dict[str, str]]) -> str:
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[c] for c in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
