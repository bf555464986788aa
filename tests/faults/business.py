"""A small business for faults: plans in many situations, clean runs to their end, what is wrong."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from prepaid_pipeline.audit import seals
from prepaid_pipeline.billing import payment_matching
from prepaid_pipeline.database import queries
from prepaid_pipeline.mail.sender import send_emails
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.process import steps
from prepaid_pipeline.settings.load import Settings
from tests.faults.sink import Sink
from tests.world import TODAY, World, context

_SQL = Path(__file__).with_name("plans.sql")
RENEWALS = (0, 1, 2, 3)
HELD, PURCHASE, CHANGE = 3, 4, 5
GOING_ON = tuple(sorted({*RENEWALS} - {HELD}))


class Business:
    """``reference`` is what becomes of a plan of each situation when nothing goes wrong."""

    def __init__(self, engine: Engine, settings: Settings, sink: Sink) -> None:
        self.engine, self.sink = engine, sink
        self.settings = settings.model_copy(update={"smtp_url": sink.url})
        self.world = World(engine)
        self.reference: dict[str, str] = {}
        self._parts = {s.name: s for s in queries.parse("plans", _SQL.read_text(encoding="utf-8"))}
        self.made_before = self._looked_at = 0

    def open_for_business(self) -> None:
        """Plans, people, and one undisturbed plan of each situation."""
        world = self.world
        world.tax_rate("0.0725")
        for code, price in (("basic", "10.00"), ("free", "0.00"), ("better", "25.00")):
            plan = world.plan(price)
            world.sql("UPDATE prepaid.plans SET plan_code = :c WHERE plan_id = :p", c=code, p=plan)
        world.addon("2.50")
        accounts.add(self.engine, "faults_clerk", "finance")
        accounts.add(self.engine, "faults_care", "customer_success")
        self.add(1, (*RENEWALS, PURCHASE, CHANGE))
        self.finish()
        self.reference = {situation: became for situation, became in self._became()}
        assert sorted(self.reference) == [*map(str, RENEWALS), str(PURCHASE), str(CHANGE)]
        for situation, became in self.reference.items():
            assert situation == str(HELD) or _once(json.loads(became)), became
        assert not (wrong := self.wrong()), wrong

    def do(self, part: str, **params: Any) -> list[Any]:
        """Execute a part of plans.sql; its first column."""
        with self.engine.begin() as connection:
            result = self._parts[part].execute(connection, {"due": TODAY, **params})
            return list(result.scalars()) if result.returns_rows else []

    def add(
        self, number: int, situations: tuple[int, ...] = RENEWALS, first: int | None = None
    ) -> None:
        """So many of each situation that are due today, next to each other in their order.

        ``first`` is the number in their references; by default the next one.
        """
        first = first or self.made_before + 1
        numbers = {"first": first, "last": first + number - 1}
        self.made_before = max(self.made_before, first + number - 1)
        params = {"due": TODAY, **numbers, "situations": list(situations)}
        with self.engine.begin() as connection:
            for part in ("customers", "subscriptions", "addons", "discounts", "terms"):
                self._parts[part].execute(connection, params)
        if CHANGE in situations:
            asked = {"subscriptions": self.do("to_change"), "due": TODAY}
            with decisions.acting(self.engine, "faults_care", "change plans", TODAY) as connection:
                self._parts["change"].execute(connection, asked).all()

    def claim(self, queue: str, size: int) -> int:
        """The next batch of that size, which must be there."""
        batch = steps.claim(self.engine, queue, context(batch_size=size))
        assert batch is not None
        return batch

    def through(self, queue: str, before: str | None = None) -> None:
        """All that waits, through the steps of a queue; through those before one of them only."""
        names = steps.QUEUES[queue]
        names = names[: names.index(before)] if before else names
        if not names:
            return
        for batch in steps.claim_all(self.engine, queue, context()):
            for name in names:
                steps.run_step(self.engine, name, batch, context())
            if before:
                self.do("time_passes")
                return

    def invoice(self) -> None:
        steps.open_service_plans(self.engine, context())
        self.through("open_renewals")

    def pay(self, limit: int = 100_000) -> None:
        self.do("pay", limit=limit)

    def approve(self, kind: str = "payment_verification", limit: int = 100_000) -> None:
        """Everything of a kind that nobody has decided."""
        tasks = self.do("undecided", kind=kind, limit=limit)
        person = "faults_care" if kind == "quality_check" else "faults_clerk"
        if tasks:
            decisions.decide(self.engine, person, tasks, "approve", None, TODAY)

    def mail(self) -> None:
        send_emails(self.engine, self.settings, as_of=TODAY)

    def finish(self) -> None:
        """The leases run out, and clean runs take everything to its end."""
        self.do("time_passes")
        self.invoice()
        self.pay()
        payment_matching.match_payments(self.engine, context())
        self.approve()
        self.through("settle_renewals")
        self.mail()
        self.approve("quality_check")
        steps.close_quality_checks(self.engine, context())

    def wrong(self) -> list[str]:
        """What has not ended as it does undisturbed since the last look, and all that
        ``prepaid check`` and ``prepaid audit verify`` find.
        """
        found = [
            f"situation {situation}: {became} instead of {self.reference[situation]}"
            for situation, became in self._became()
            if became != self.reference[situation]
        ]
        self._looked_at = self.world.sql("SELECT max(service_plan_id) FROM prepaid.service_plans")
        for check in invariants.run(self.engine, context()):
            found += check.findings
        seals.seal(self.engine, wait=True)
        found += [finding.text for finding in seals.verify(self.engine)]
        return found + self.sink.wrong(self.world)

    def _became(self) -> list[tuple[str, str]]:
        with self.engine.connect() as connection:
            rows = self._parts["became"].execute(connection, {"after": self._looked_at})
            return [(row.situation, json.dumps(row.became, sort_keys=True)) for row in rows]


def _once(became: dict[str, Any]) -> bool:
    """One paid invoice, one provisioning entry, one confirmation, one quality check, all done."""
    provisioned = [entry for entry in became["audit"] if entry.startswith("service_provisioned")]
    kinds = Counter(task[0] for task in became["tasks"])
    return (
        became["plan"][1] == "Active"
        and [invoice[0] for invoice in became["invoices"]] == ["Paid"]
        and len(provisioned) == 1
        and [mail[0] for mail in became["mails"]] == ["activation_confirmation"]
        and kinds["quality_check"] == 1
        and not became["waits"]
    )
