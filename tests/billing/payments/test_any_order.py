"""The outcomes of records depend on the set of records, not on the order in which they arrive."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from prepaid_pipeline.operations import invariants
from tests.billing.providers.deliveries import take, write
from tests.billing.providers.statements import entry, statement
from tests.world import World, context

EXAMPLES = 20
_LAND = text(
    "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency,"
    " status, occurred_at, customer_ref) SELECT 'bank', :ref, :number, CAST(:amount AS numeric),"
    " :currency, :status, TIMESTAMPTZ '2026-11-02 10:00Z' + :hour * interval '1 hour',"
    " CASE :customer WHEN 'right' THEN (SELECT customer_ref FROM prepaid.customers JOIN"
    " prepaid.invoices USING (customer_id) WHERE invoice_number = :number)"
    " WHEN 'wrong' THEN 'nobody' END RETURNING transaction_id"
)


@dataclass(frozen=True)
class Event:
    """A record, with its payment and invoice by their places."""

    payment: int | None
    invoice: int | None
    hour: int | None
    status: str
    amount: str
    currency: str
    customer: str


YEAR = 366 * 24
# Of a day to come, long before the invoice, from a clock that was never set, without a time.
STRANGE = [900 * YEAR, -YEAR, -100 * YEAR, None]
EVENTS = st.builds(
    Event,
    payment=st.sampled_from([0, 0, 1, 1, 2, None]),
    invoice=st.sampled_from([0, 0, 0, 1, None]),
    hour=st.sampled_from([*range(4)] * 3 + STRANGE),
    status=st.sampled_from(
        ["Success"] * 4
        + [
            "Pending",
            "Failed",
            "Failed",
            "canceled",
            "Refunded",
            "Chargeback",
            "ChargebackReversed",
        ]
        + ["held_by_bank", "requires_action"]
    ),
    amount=st.sampled_from(["10.73"] * 4 + ["4.00", "6.73", "12.00", "-10.73", "-4.00", "NaN"]),
    currency=st.sampled_from(["USD"] * 5 + ["EUR"]),
    customer=st.sampled_from(["right", "right", "none", "wrong"]),
)


def pair(world: World, left: list[str]) -> list[str]:
    """Two open invoices over 10.73 that no record has named yet; ``left`` keeps the others."""
    if not left:
        plan, known = world.plan(), set(world.plans())
        for _ in range(40):
            world.subscription(world.customer(), plan)
        left += [world.invoice(plan) for plan in world.open() if plan not in known]
    return [left.pop(0), left.pop(0)]


@pytest.fixture(scope="module")
def left(module_world: World) -> list[str]:
    module_world.tax_rate("0.0725")
    return []


def outcomes(
    world: World, numbers: list[str], prefix: str, events: list[Event], judged: list[bool]
) -> Counter[tuple[Event, str, str | None]]:
    """Deliver the events in their order, with runs of match_payments in between."""
    landed: list[tuple[Event, int]] = []
    for event, now in zip(events, judged, strict=True):
        with world.engine.begin() as connection:
            record = connection.execute(
                _LAND,
                {
                    "ref": None if event.payment is None else f"{prefix}-{event.payment}",
                    "number": None if event.invoice is None else numbers[event.invoice],
                    "amount": event.amount,
                    "currency": event.currency,
                    "status": event.status,
                    "hour": event.hour,
                    "customer": event.customer,
                },
            ).scalar()
        if record is not None:
            landed.append((event, record))
        if now:
            world.match()
    world.match()
    found: Counter[tuple[Event, str, str | None]] = Counter()
    for event, record in landed:
        ((outcome, reason),) = world.rows(
            "SELECT outcome, outcome_reason FROM prepaid.transactions WHERE transaction_id = :r",
            r=record,
        )
        reason = reason and reason.replace(prefix, "payment")
        for place, number in enumerate(numbers):
            reason = reason and reason.replace(number, f"invoice {place}")
        reason = reason and re.sub(r"\bC\d+", "C", reason)
        found[event, outcome, reason] += 1
    return found


@hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_order_gives_the_same_outcomes(
    module_world: World, left: list[str], data: st.DataObject
) -> None:
    events = data.draw(st.lists(EVENTS, min_size=2, max_size=7))
    other = data.draw(st.permutations(events))
    judged = data.draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    first, second = pair(module_world, left), pair(module_world, left)
    at_once = outcomes(module_world, first, f"{first[0]}a", events, [False] * len(events))
    piecemeal = outcomes(module_world, second, f"{second[0]}b", other, judged)
    assert piecemeal == at_once
    for (event, outcome, _), _n in at_once.items():
        if outcome == "waiting":
            assert event.status in ("Pending", "held_by_bank")
        if outcome == "matched":
            assert event.status == "Success"
            assert event.currency == "USD"
            assert event.customer != "wrong"
            assert event.hour in range(4)
            assert event.amount in ("10.73", "4.00", "6.73")
    assert [f for c in invariants.run(module_world.engine, context()) for f in c.findings] == []


@dataclass(frozen=True)
class Entry:
    """An entry of a bank statement; few references, so that payments share them."""

    ref: str
    invoice: int | None
    day: int
    status: str
    amount: str
    payer: str

    def written(self, numbers: list[str]) -> str:
        number = "" if self.invoice is None else numbers[self.invoice]
        return entry(
            self.ref,
            amount=self.amount,
            currency="USD",
            status=self.status,
            day=f"2026-11-0{self.day}",
            text=f"{self.payer} {number}",
        )


ENTRIES = st.builds(
    Entry,
    ref=st.sampled_from(["0001", "0001", "0002"]),
    invoice=st.sampled_from([0, 0, 1, None]),
    day=st.integers(2, 4),
    status=st.sampled_from(["BOOK", "BOOK", "BOOK", "PDNG"]),
    amount=st.sampled_from(["10.73", "10.73", "4.00", "6.73"]),
    payer=st.sampled_from(["One", "Two"]),
)


def delivered(
    world: World, folder: Path, account: str, numbers: list[str], files: list[list[Entry]]
) -> Counter[tuple[str | None, ...]]:
    """Import each file and match; what has become of each record."""
    for entries in files:
        written = statement(*(e.written(numbers) for e in entries), account=account)
        assert take(world.engine, write(folder, "statement.xml", written)).errors == []
        world.match()
    found = world.rows(
        "SELECT coalesce(bank_ref, provider_ref), invoice_number, occurred_at::text, status,"
        " amount::text, outcome, outcome_reason FROM prepaid.transactions WHERE provider = :a",
        a=account,
    )
    return Counter(
        tuple(
            value and value.replace(numbers[0], "first").replace(numbers[1], "second")
            for value in record
        )
        for record in found
    )


@hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_statements_in_any_order_give_the_same_outcomes(
    module_world: World, left: list[str], tmp_path: Path, data: st.DataObject
) -> None:
    """In parts that overlap, and at last the whole: as if the whole had come at once."""
    entries = data.draw(st.lists(ENTRIES, min_size=2, max_size=6))
    parts = [
        [e for e in data.draw(st.permutations(entries)) if data.draw(st.booleans())]
        for _ in range(2)
    ]
    first, second = pair(module_world, left), pair(module_world, left)
    at_once = delivered(module_world, tmp_path, f"A{first[0]}", first, [entries])
    files = [*parts, data.draw(st.permutations(entries))]
    assert delivered(module_world, tmp_path, f"B{second[0]}", second, files) == at_once
    assert sum(at_once.values()) == len(entries)
