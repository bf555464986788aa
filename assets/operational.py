"""The tables of the renewal process as assets that Dagster does not make: the graph reads like the
process, from the customer to the mail, and ends where the monthly figures begin.
"""

import dagster as dg

from prepaid_pipeline.teams import Team

PIPELINE = [Team.ENGINEERING.owner]
FINANCE = [Team.FINANCE.owner]
SUPPORT = [Team.CUSTOMER_SUCCESS.owner]


def _table(
    name: str, group: str, owners: list[str], description: str, deps: tuple[str, ...] = ()
) -> dg.AssetSpec:
    return dg.AssetSpec(
        name,
        group_name=group,
        owners=owners,
        kinds={"postgres", "table"},
        description=description,
        deps=deps,
        metadata={"dagster/table_name": f"prepaid.{name}"},
    )


OPERATIONAL_TABLES = (
    _table("customers", "reference", SUPPORT, "Who buys. Imported and kept up to date."),
    _table("plans", "reference", FINANCE, "What is sold: terms, add-ons and price lists."),
    _table("tax_rates", "reference", FINANCE, "Rates per country and tax class, with their dates."),
    _table(
        "subscriptions",
        "reference",
        SUPPORT,
        "What a customer has subscribed to, and whether it renews automatically.",
        ("customers", "plans"),
    ),
    _table(
        "service_plans",
        "renewal",
        PIPELINE,
        "One prepaid term of one subscription: the process instance. Opened in step 0, active"
        " after step 8.",
        ("subscriptions",),
    ),
    _table(
        "holds",
        "renewal",
        PIPELINE,
        "Plans that wait for a person, with the reason and what can be done.",
        ("service_plans",),
    ),
    _table(
        "charges",
        "billing",
        FINANCE,
        "What will be invoiced, with tax (step 3).",
        ("service_plans", "tax_rates"),
    ),
    _table("invoices", "billing", FINANCE, "Invoices with gapless numbers (step 4).", ("charges",)),
    _table(
        "transactions",
        "billing",
        FINANCE,
        "Payment providers' records as they arrived; each gets one outcome.",
        ("invoices",),
    ),
    _table(
        "tasks",
        "sign_off",
        FINANCE,
        "Payment verifications (step 5) and quality checks (step 11).",
        ("invoices", "service_plans"),
    ),
    _table(
        "sign_offs",
        "sign_off",
        FINANCE,
        "Who decided what, append-only.",
        ("tasks", "transactions"),
    ),
    _table(
        "audit_log",
        "delivery",
        PIPELINE,
        "Every change of state, append-only; step 9 writes the provisioning entry.",
        ("service_plans", "sign_offs"),
    ),
    _table(
        "emails",
        "delivery",
        SUPPORT,
        "The outbox: activation confirmations (step 10).",
        ("service_plans", "audit_log"),
    ),
)
