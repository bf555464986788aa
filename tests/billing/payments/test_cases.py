"""Every payment case of docs/payments.md has the outcome that the table says, in any order."""

import random
from decimal import Decimal

import pytest

from prepaid_pipeline.operations import invariants
from tests.billing.payments.cases import NO_RECORD, Case, Table, cases
from tests.world import World, context

CASES = cases()
OF_RECORDS = [case for case in CASES if case.only_records and "dropped" not in case.outcomes]


def named(case: Case) -> str:
    return case.name


def findings(world: World) -> list[str]:
    return [line for check in invariants.run(world.engine, context()) for line in check.findings]


def test_the_table_is_read() -> None:
    assert len(CASES) > 40
    assert len(OF_RECORDS) > 25


@pytest.mark.parametrize("case", CASES, ids=named)
def test_outcome(world: World, case: Case) -> None:
    table = Table.laid(world)
    played = [(event, table.play(event)) for event in case.events]
    table.match()
    found = [table.outcome(record) for event, record in played if event not in NO_RECORD]
    assert tuple(outcome for outcome, _ in found) == case.outcomes
    if case.reason:
        assert case.reason in [reason for outcome, reason in found if outcome == "parked"]
    assert table.invoice_status() == case.invoice
    assert table.plan_status() == case.plan
    assert findings(world) == []
    # The report reads the records as the invoice does.
    if "payment_reversed" in case.plan:
        assert table.came_back() > 0
    elif "matched" in case.outcomes and not any(event.startswith("p2") for event in case.events):
        assert table.came_back() < Decimal("10.73")
    # Once more changes nothing.
    before = world.dump()
    table.match()
    assert world.dump() == before


# Any order of any records is a property of its own; here each case in one.
_IN_ORDER = [
    pytest.param(case, marks=pytest.mark.long if place % 3 else ())
    for place, case in enumerate(OF_RECORDS)
]


@pytest.mark.parametrize("case", _IN_ORDER, ids=named)
def test_the_order_of_arrival_does_not_matter(world: World, case: Case) -> None:
    table, order = Table.laid(world), random.Random(case.name)
    arriving = list(enumerate(case.events))
    order.shuffle(arriving)
    records: dict[int, int | None] = {}
    for place, event in arriving:
        records[place] = table.play(event)
        if order.random() < 0.5:
            table.match()
    table.match()
    found = tuple(table.outcome(records[place])[0] for place in range(len(case.events)))
    assert found == case.outcomes
    assert findings(world) == []
