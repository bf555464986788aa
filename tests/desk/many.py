"""Many payments to verify, made by the real steps from customers that one statement makes."""

from tests.world import World

_CUSTOMERS = """
INSERT INTO prepaid.customers (customer_ref, name, email, country, currency)
SELECT 'M' || n, 'Customer ' || n, 'someone@example.com', 'US', 'USD' FROM generate_series(1, :n) n
"""
_SUBSCRIPTIONS = """
INSERT INTO prepaid.subscriptions
    (subscription_ref, customer_id, plan_id, started_on, anchor_date, auto_renew)
SELECT 'S' || customer_ref, customer_id, :plan, DATE '2026-11-02', DATE '2026-11-02', true
FROM prepaid.customers WHERE customer_ref LIKE 'M%'
"""
_RECORDS = """
INSERT INTO prepaid.transactions
    (provider, provider_ref, invoice_number, amount, currency, status, occurred_at, customer_ref)
SELECT 'bank', 'pay-' || i.invoice_id, i.invoice_number,
       i.total + CASE WHEN i.invoice_id % :every = 0 THEN 1 ELSE 0 END, i.currency, 'Success',
       TIMESTAMPTZ '2026-11-02 10:00Z', c.customer_ref
FROM prepaid.invoices i JOIN prepaid.customers c USING (customer_id)
"""


def payments(
    world: World, number: int, one_in: int = 1_000_000, dear: str | None = None
) -> list[int]:
    """That many open payments; of every ``one_in`` one is over a wrong amount. The plans' ids.

    With ``dear`` the first plan costs that much.
    """
    world.tax_rate("0.0725")
    world.sql(_CUSTOMERS, n=number)
    world.sql(_SUBSCRIPTIONS, plan=world.plan())
    if dear is not None:
        world.sql(
            "UPDATE prepaid.subscriptions SET price = CAST(:dear AS numeric)"
            " WHERE subscription_ref = 'SM1'",
            dear=dear,
        )
    plans = world.open()
    world.sql(_RECORDS, every=one_in)
    world.match()
    for table in ("tasks", "invoices", "transactions", "service_plans", "sign_offs", "customers"):
        world.sql(f"ANALYZE prepaid.{table}")
    return plans
