"""The table of cases in docs/payments.md, read and played against the real process."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

from prepaid_pipeline.database import queries
from prepaid_pipeline.people import decisions
from tests.world import World, context

DOCS = Path(__file__).parents[3] / "docs" / "payments.md"
_RECORD = re.compile(
    r"(?P<ref>\w*) (?P<time>\d\d:\d\d|[\d-]{10,}|infinity|no-time)(?:\+(?P<days>\d+)d)?"
    r" (?P<status>[A-Za-z]\w+)(?: (?P<amount>-?[\d.]+|NaN))?(?P<changes>(?: \w+=\S*)*)"
)
VERIFIED, VOID, JUDGED, ASSIGNED = NO_RECORD = ("…", "VOID", "judged", "assigned")
# A day after all records of the table that are not from a future that nobody knows.
JUDGED_ON = context(date(2026, 12, 31))


@dataclass(frozen=True)
class Case:
    """One row: the events in order, and what must have come of them."""

    name: str
    events: tuple[str, ...]
    outcomes: tuple[str, ...]
    reason: str
    invoice: str
    plan: str

    @property
    def only_records(self) -> bool:
        """Nothing but records: their order must not matter."""
        return not set(NO_RECORD) & set(self.events)


def cases() -> list[Case]:
    """All rows of the table."""
    table = DOCS.read_text(encoding="utf-8").split("## Every case")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    return [
        Case(
            name.strip(),
            tuple(re.findall("`(.*?)`", events)),
            tuple(o.strip() for o in outcomes.split(",")),
            reason.strip(),
            invoice.strip(),
            plan.strip(),
        )
        for name, events, outcomes, reason, invoice, plan in rows[1:]
    ]


@dataclass
class Table:
    """INV and OTHER of the table, in a world of their own."""

    world: World
    plan: int
    number: str
    other: str

    @classmethod
    def laid(cls, world: World) -> "Table":
        world.tax_rate("0.0725")
        world.due_renewal()
        world.due_renewal()
        plan, other = world.open()
        return cls(world, plan, world.invoice(plan), world.invoice(other))

    def play(self, event: str) -> int | None:
        """One event; the record's id if it is one and was not dropped."""
        if event in NO_RECORD:
            self.match()
        if event == VERIFIED:
            decisions.decide(
                self.world.engine, self.world.officer(), [self.world.task(self.plan)], "approve", ""
            )
            self.world.settle()
            return None
        if event == VOID:
            self.world.cancel(self.plan)
            return None
        if event == ASSIGNED:
            self.assign()
            return None
        return None if event == JUDGED else self.deliver(event)

    def match(self) -> None:
        self.world.match(JUDGED_ON)

    def assign(self) -> None:
        """Finance says that the parked Success has come, and pays INV."""
        clerk = self.world.officer("test_clerk")
        record = self.world.sql(
            "SELECT transaction_id FROM prepaid.transactions"
            " WHERE outcome = 'parked' AND status = 'Success'"
        )
        decisions.assign(self.world.engine, clerk, record, self.number, "it has come")

    def deliver(self, event: str) -> int | None:
        found = _RECORD.fullmatch(event)
        assert found, event
        changes = dict(change.split("=") for change in found["changes"].split())
        number = changes.get("invoice", self.number)
        time = found["time"]
        day = "2026-11-02 " if ":" in time else ""
        return self.world.sql(
            "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount,"
            " currency, status, occurred_at, customer_ref) VALUES ('bank', :ref, :number,"
            " CAST(:amount AS numeric), :currency, :status,"
            " CAST(:moment AS timestamptz) + :days * interval '1 day', :customer)"
            " RETURNING transaction_id",
            ref=found["ref"] or None,
            number={"OTHER": self.other, "": None}.get(number, number),
            amount=found["amount"],
            currency=changes.get("currency", "USD") or None,
            status=found["status"],
            moment=None if time == "no-time" else f"{day}{time}" + (" UTC" if day else ""),
            days=int(found["days"] or 0),
            customer=changes.get("customer", "C1") or None,
        )

    def outcome(self, record: int | None) -> tuple[str, str | None]:
        """Outcome and reason of a record; the real invoice number is called INV."""
        if record is None:
            return "dropped", None
        ((outcome, reason),) = self.world.rows(
            "SELECT outcome, outcome_reason FROM prepaid.transactions WHERE transaction_id = :t",
            t=record,
        )
        return outcome, reason and reason.replace(self.number, "INV")

    def invoice_status(self) -> str:
        return self.world.sql(
            "SELECT status FROM prepaid.invoices WHERE invoice_number = :n", n=self.number
        )

    def came_back(self) -> Decimal:
        """What the figures say that came back of INV's money, in its currency."""
        read = queries.statement("steps/12_monthly_recurring_revenue/2_mrr", "money_returned")
        with self.world.engine.connect() as connection:
            read.execute(connection, {"as_of": date(9999, 12, 31)})
            found = connection.exec_driver_sql(
                "SELECT coalesce(sum(amount), 0) FROM money_returned"
                " WHERE is_ours AND NOT by_credit_note AND currency = 'USD'"
            )
            return Decimal(found.scalar_one())

    def plan_status(self) -> str:
        held = self.world.holds(self.plan)
        return self.world.status(self.plan) + "".join(f", held: {code}" for code in held)
