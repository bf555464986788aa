"""A business as a state machine: whatever happens in whatever order, the invariants hold."""

from datetime import date, timedelta
from decimal import Decimal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import URL

from prepaid_pipeline.billing import dunning, invoices, subscriptions
from prepaid_pipeline.context import Context
from prepaid_pipeline.database import connections
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.conftest import fresh_database
from tests.revenue import sums
from tests.world import World

FIRST_DAY = date(2026, 1, 29)  # the ends of months and of a February are near
REMINDER_DAYS, PAYMENT_DAYS = (3, 7), 15
GRACE_DAYS, LEAD_DAYS = 7, 7
_PICK = st.integers(0, 1_000_000)
_WHO = st.integers(0, 1)  # of finance: what one had a hand in, the other has to approve
# Approvers of what is Paid who had a hand in it by then.
_OWN = """
SELECT i.invoice_number, e.person, e.what
FROM prepaid.invoices i
JOIN prepaid.tasks k ON k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
    AND k.status = 'Done' AND k.decision = 'approved'
JOIN prepaid.four_eyes e ON e.task_id = k.task_id AND e.person IN (k.decided_by, k.first_approved_by)
WHERE i.status = 'Paid' AND e.at < (
    SELECT max(a.at) FROM prepaid.audit_log a
    WHERE a.event = 'invoice_paid' AND a.entity = 'invoice' AND a.entity_id = i.invoice_id)
"""
# As a provider dates its records, and as one does that means another year or says nothing.
_DATED = st.sampled_from(["today"] * 8 + ["2962-11-02", "infinity", "1970-01-01", None])


class Business(RuleBasedStateMachine):
    """Customers buy, pay, dispute, leave and change; people decide; days pass.

    What the database refuses a person (NotAllowed) is a right answer as long as nothing changes.
    """

    cluster: URL

    @initialize()
    def opens_for_business(self) -> None:
        """A database of its own with three plans: a month, a quarter, 30 days."""
        self.lent = fresh_database(self.cluster)
        self.world = World(connections.engine_for(self.lent.__enter__()))
        self.day, self.payments = FIRST_DAY, 0
        self.world.tax_rate("0.0725")
        self.plans = [
            self.world.plan("10.00"),
            self.world.plan("27.90", months=3),
            self.world.plan("9.99", days=30),
            self.world.plan("0.00"),
        ]
        self.clerks = [self.world.officer(f"test_clerk_{n}", "finance") for n in range(2)]
        self.care = self.world.officer("test_care", "customer_success")

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.engine.dispose()
        self.lent.__exit__(None, None, None)

    def at(self) -> Context:
        return Context(
            self.day,
            GRACE_DAYS,
            LEAD_DAYS,
            reminder_days=REMINDER_DAYS,
            payment_days=PAYMENT_DAYS,
        )

    def one(self, pick: int, query: str) -> tuple[object, ...] | None:
        """One of the rows that a query finds."""
        rows = self.world.rows(query)
        return rows[pick % len(rows)] if rows else None

    # Customers

    @rule(plan=st.integers(0, 3), renews=st.booleans(), own=st.sampled_from([None, "12.34"]))
    def buy(self, plan: int, renews: bool, own: str | None) -> None:
        self.world.subscription(
            self.world.customer(), self.plans[plan], self.day, auto_renew=renews, price=own
        )

    @rule(
        pick=_PICK,
        status=st.sampled_from(["Success"] * 6 + ["Pending", "Failed", "odd"]),
        part=st.sampled_from(["all"] * 5 + ["a part", "the rest", "too much"]),
        named=st.sampled_from([True] * 5 + [False]),
        dated=_DATED,
    )
    def pay(self, pick: int, status: str, part: str, named: bool, dated: str | None) -> None:
        asked = self.one(
            pick, "SELECT invoice_number, payable FROM prepaid.invoices ORDER BY invoice_id"
        )
        if asked:
            self.payments += 1
            payable = Decimal(str(asked[1]))
            amount = {
                "all": payable,
                "a part": Decimal(4),
                "the rest": payable - 4,
                "too much": payable + 1,
            }[part]
            self.deliver(
                f"p{self.payments}", asked[0] if named else None, amount, status, dated=dated
            )

    @rule(
        pick=_PICK,
        hours=st.integers(-1, 3),
        status=st.sampled_from(
            ["Success", "Failed", "Refunded", "Chargeback", "Chargeback", "ChargebackReversed"]
        ),
        sign=st.sampled_from([1, 1, 1, -1]),
        currency=st.sampled_from(["USD"] * 5 + ["JPY"]),
        dated=_DATED,
    )
    def the_same_payment_again(
        self, pick: int, hours: int, status: str, sign: int, currency: str, dated: str | None
    ) -> None:
        said = self.one(
            pick,
            "SELECT provider_ref, invoice_number, amount FROM prepaid.transactions"
            " ORDER BY transaction_id",
        )
        if said:
            amount = sign * Decimal(str(said[2]))
            self.deliver(said[0], said[1], amount, status, hours, currency, dated)

    def deliver(
        self,
        ref: object,
        number: object,
        amount: object,
        status: str,
        hours: int = 0,
        currency: str = "USD",
        dated: str | None = "today",
    ) -> None:
        """A record of the provider, dated by the day and the number of records so far."""
        count = self.world.sql("SELECT count(*) FROM prepaid.transactions")
        moment = f"{self.day}T{min(23, max(0, 10 + hours)):02}:{count % 60:02}Z"
        self.world.record(
            number,
            amount,
            provider_ref=ref,
            status=status,
            currency=currency,
            occurred_at=moment if dated == "today" else dated,  # type: ignore[arg-type]
        )

    @rule(pick=_PICK, at_once=st.booleans())
    def cancel(self, pick: int, at_once: bool) -> None:
        asked = self.one(
            pick, "SELECT subscription_ref FROM prepaid.subscriptions ORDER BY subscription_id"
        )
        if asked:
            named = subscriptions.find(self.world.engine, f"subscription:{asked[0]}")
            self.ask(
                lambda: subscriptions.cancel(
                    self.world.engine,
                    self.care,
                    named,
                    "asked for",
                    at_once=at_once,
                    as_of=self.day,
                )
            )

    @rule(
        pick=_PICK,
        plan=st.integers(0, 3),
        days=st.sampled_from([None, 0, 1, 5]),
        price=st.sampled_from([None, None, None, "0", "5.00", "99.00"]),
    )
    def change(self, pick: int, plan: int, days: int | None, price: str | None) -> None:
        """Also to a price below the list, which waits for finance."""
        asked = self.one(
            pick, "SELECT subscription_ref FROM prepaid.subscriptions ORDER BY subscription_id"
        )
        code = self.world.sql(
            "SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=self.plans[plan]
        )
        if asked:
            named = subscriptions.find(self.world.engine, f"subscription:{asked[0]}")
            on = None if days is None else self.day + timedelta(days=days)
            wanted = subscriptions.Change(code, Decimal(price) if price else None, on=on)
            self.ask(
                lambda: subscriptions.change(
                    self.world.engine, self.care, named, wanted, "asked for", as_of=self.day
                )
            )

    # People

    @rule(pick=_PICK, who=_WHO, word=st.sampled_from(["approve", "approve", "approve", "reject"]))
    def sign_off(self, pick: int, who: int, word: str) -> None:
        """Also before there is a record, or by who had a hand in it: refused."""
        task = self.one(
            pick,
            "SELECT task_id, assigned_role FROM prepaid.tasks WHERE status = 'Open'"
            " ORDER BY task_id",
        )
        if task:
            person = self.clerks[who] if task[1] == "finance" else self.care
            self.ask(
                lambda: decisions.decide(
                    self.world.engine, person, [int(str(task[0]))], word, "looked at"
                )
            )

    @rule(pick=_PICK, who=_WHO)
    def approve_and_assign_as_well(self, pick: int, who: int) -> None:
        """One person does both, on the same invoice: approves what agrees, then brings a record to it."""
        task = self.one(
            pick,
            "SELECT task_id, invoice_number FROM prepaid.payment_verifications"
            " WHERE status = 'Open' AND agrees ORDER BY task_id",
        )
        if task is None:
            return
        self.ask(
            lambda: decisions.decide(
                self.world.engine, self.clerks[who], [int(str(task[0]))], "approve", "looked at"
            )
        )
        self.payments += 1
        record = self.world.record(None, "12.00", provider_ref=f"p{self.payments}")
        self.world.match(self.at())
        self.ask(
            lambda: decisions.assign(
                self.world.engine, self.clerks[who], int(record or 0), str(task[1]), "found it"
            )
        )

    @rule(pick=_PICK, who=_WHO)
    def release(self, pick: int, who: int) -> None:
        held = self.one(
            pick, "SELECT service_plan_id FROM prepaid.holds WHERE released_at IS NULL ORDER BY 1"
        )
        if held:
            plan = int(str(held[0]))
            clerk = self.clerks[who]
            self.ask(lambda: decisions.release(self.world.engine, clerk, plan, "cleared up"))

    @rule(pick=_PICK, who=_WHO, reissue=st.booleans())
    def void(self, pick: int, who: int, reissue: bool) -> None:
        number = self.one(pick, "SELECT invoice_number FROM prepaid.invoices ORDER BY invoice_id")
        if number:
            self.ask(
                lambda: invoices.void(
                    self.world.engine,
                    self.clerks[who],
                    str(number[0]),
                    "wrong",
                    reissue=reissue,
                    as_of=self.day,
                )
            )

    @rule(pick=_PICK, who=_WHO, to=_PICK)
    def assign(self, pick: int, who: int, to: int) -> None:
        record = self.one(
            pick, "SELECT transaction_id FROM prepaid.transactions ORDER BY transaction_id"
        )
        number = self.one(to, "SELECT invoice_number FROM prepaid.invoices ORDER BY invoice_id")
        if record and number:
            self.ask(
                lambda: decisions.assign(
                    self.world.engine,
                    self.clerks[who],
                    int(str(record[0])),
                    str(number[0]),
                    "meant for it",
                )
            )

    def ask(self, action: object) -> None:
        """What a person asks for; refused or done."""
        assert callable(action)
        before = self.world.dump()
        try:
            action()
        except NotAllowed:
            assert self.world.dump() == before

    # The pipeline

    @rule()
    def open(self) -> None:
        self.world.open(self.at())

    @rule()
    def match(self) -> None:
        self.world.match(self.at())

    @rule()
    def settle(self) -> None:
        self.world.settle(self.at())

    @rule()
    def close_quality_checks(self) -> None:
        steps.close_quality_checks(self.world.engine, self.at())

    @rule()
    def expire(self) -> None:
        steps.expire_service_plans(self.world.engine, self.at())

    @rule()
    def dun(self) -> None:
        dunning.remind_unpaid(self.world.engine, self.at())
        dunning.cancel_unpaid(self.world.engine, self.at())

    @precondition(lambda self: self.day < date(2026, 12, 1))
    @rule(days=st.sampled_from([1, 2, 5, GRACE_DAYS]))
    def time_passes(self, days: int) -> None:
        """At the latest after the days of grace, the daily job has opened what is due."""
        self.day += timedelta(days=days)
        steps.open_service_plans(self.world.engine, self.at())

    @invariant()
    def holds(self) -> None:
        """Every invariant of ``prepaid check``, and every sum of the monthly figures."""
        if hasattr(self, "world"):
            found = invariants.run(self.world.engine, self.at())
            assert [line for check in found for line in check.findings] == []
            assert self.world.rows(_OWN) == []
            assert sums.broken(self.world.engine, FIRST_DAY.replace(day=1), self.day) == {}
