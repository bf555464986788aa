"""Payment records that landed with release 0.1.0, and what a newer one makes of them."""

from sqlalchemy import URL

from prepaid_pipeline.database import migrations
from prepaid_pipeline.operations import invariants
from tests.database.make_release import LAST_DAY
from tests.database.releases import at_release
from tests.world import World, context

_LANDED = """
INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency, status,
                                  occurred_at, outcome, outcome_reason)
SELECT 'stripe', ref, invoice_number, CAST(amount AS numeric), 'USD', status,
       CAST(at AS timestamptz), outcome, 'as it was'
FROM (SELECT min(invoice_number) AS invoice_number FROM prepaid.invoices WHERE status = 'Open') i,
     (VALUES ('canceled', '10.73', 'canceled', '2026-11-02 10:00Z', 'waiting'),
             ('unfinished', '10.73', 'requires_action', '2026-11-02 10:00Z', 'waiting'),
             ('unknown', '10.73', 'held', '2026-11-02 10:00Z', 'waiting'),
             ('poison', '9e131000', 'held', 'infinity', 'waiting'))
         r (ref, amount, status, at, outcome)
"""


def test_no_money_is_judged_again_and_poison_is_kept_as_text(cluster: URL) -> None:
    with at_release(cluster, "0.1.0") as engine:
        world = World(engine)
        world.sql(_LANDED)
        migrations.upgrade(engine)
        found = dict(
            world.rows(
                "SELECT provider_ref, outcome FROM prepaid.transactions WHERE provider = 'stripe'"
            )
        )
        assert found == {
            "canceled": None,
            "unfinished": None,
            "unknown": "waiting",
            "poison": "waiting",
        }
        ((amount, occurred_at, kept),) = world.rows(
            "SELECT amount, occurred_at, as_delivered FROM prepaid.transactions"
            " WHERE provider_ref = 'poison'"
        )
        assert (amount, occurred_at, kept["occurred_at"]) == (None, None, "infinity")
        assert kept["amount"] == "9" + "0" * 131000
        world.match(context(LAST_DAY))
        wrong = [line for c in invariants.run(engine, context(LAST_DAY)) for line in c.findings]
        assert wrong == []
