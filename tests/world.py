"""A small world for tests: customers, plans, subscriptions and terms, made by plain SQL."""

import re
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, text

from prepaid_pipeline.billing import payment_matching
from prepaid_pipeline.context import Context
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.process import steps

TODAY = date(2026, 11, 2)
# Written by the clock or by the order of events: no part of what a run must reproduce.
_VOLATILE = re.compile(r"_at$|_until$|_id$|^id$|^at$|^run_id$|^actor$|^message_id$")
TABLES = (
    "service_plans",
    "charges",
    "invoices",
    "invoice_lines",
    "invoice_series",
    "transactions",
    "tasks",
    "sign_offs",
    "holds",
    "emails",
    "audit_log",
)


def context(as_of: date = TODAY, grace_days: int = 7, lead_days: int = 7, **other: Any) -> Context:
    return Context(as_of, grace_days, lead_days, **other)


@dataclass
class World:
    """Makes rows; each method returns the id of what it made."""

    engine: Engine
    _count: int = field(default=0)

    def sql(self, statement: str, **params: Any) -> Any:
        """Execute and return the first column of the first row, if there is one."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), params)
            return result.scalar() if result.returns_rows else None

    def rows(self, statement: str, **params: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement), params)]

    def tax_rate(
        self,
        rate: str,
        country: str = "US",
        tax_class: str = "standard",
        valid_from: str = "2020-01-01",
    ) -> None:
        self.sql(
            "INSERT INTO prepaid.tax_rates VALUES (:c, :t, CAST(:r AS numeric), CAST(:v AS date))",
            c=country,
            t=tax_class,
            r=rate,
            v=valid_from,
        )

    def customer(
        self,
        email: str | None = "someone@example.com",
        country: str = "US",
        currency: str = "USD",
        tax_exempt: bool = False,
        reason: str | None = None,
    ) -> int:
        self._count += 1
        return self.sql(
            "INSERT INTO prepaid.customers (customer_ref, name, email, country, currency,"
            " tax_exempt, tax_exempt_reason) VALUES (:ref, :name, :email, :country, :currency,"
            " :exempt, :reason) RETURNING customer_id",
            ref=f"C{self._count}",
            name=f"Customer {self._count}",
            email=email,
            country=country,
            currency=currency,
            exempt=tax_exempt,
            reason=reason,
        )

    def plan(
        self,
        price: str | None = "10.00",
        months: int = 1,
        days: int = 0,
        currency: str = "USD",
        tax_class: str = "standard",
        includes_tax: bool = False,
    ) -> int:
        self._count += 1
        plan_id = self.sql(
            "INSERT INTO prepaid.plans (plan_code, name, term_months, term_days, tax_class)"
            " VALUES (:code, :name, :months, :days, :tax_class) RETURNING plan_id",
            code=f"plan-{self._count}",
            name=f"Plan {self._count}",
            months=0 if days else months,
            days=days,
            tax_class=tax_class,
        )
        self.plan_price(plan_id, price, currency=currency, includes_tax=includes_tax)
        return plan_id

    def plan_price(
        self,
        plan: int,
        price: str | None,
        valid_from: str = "1900-01-01",
        currency: str = "USD",
        includes_tax: bool = False,
    ) -> None:
        self.sql(
            "INSERT INTO prepaid.plan_prices (plan_id, currency, price, valid_from, includes_tax)"
            " VALUES (:p, :c, CAST(:price AS numeric), CAST(:valid_from AS date), :includes_tax)",
            p=plan,
            c=currency,
            price=price,
            valid_from=valid_from,
            includes_tax=includes_tax,
        )

    def addon(
        self,
        price: str | None,
        months: int = 1,
        days: int = 0,
        currency: str = "USD",
        tax_class: str = "standard",
        recurring: bool = True,
        includes_tax: bool = False,
    ) -> int:
        self._count += 1
        addon_id = self.sql(
            "INSERT INTO prepaid.addons (addon_code, name, recurring, tax_class)"
            " VALUES (:code, :name, :recurring, :tax_class) RETURNING addon_id",
            code=f"addon-{self._count:03}",
            name=f"Add-on {self._count}",
            recurring=recurring,
            tax_class=tax_class,
        )
        if price is not None:
            self.addon_price(
                addon_id,
                price,
                months=months,
                days=days,
                currency=currency,
                includes_tax=includes_tax,
            )
        return addon_id

    def addon_price(
        self,
        addon: int,
        price: str,
        valid_from: str = "1900-01-01",
        months: int = 1,
        days: int = 0,
        currency: str = "USD",
        includes_tax: bool = False,
    ) -> None:
        self.sql(
            "INSERT INTO prepaid.addon_prices VALUES (:a, :m, :d, :c, CAST(:price AS numeric),"
            " CAST(:valid_from AS date), :includes_tax)",
            a=addon,
            m=0 if days else months,
            d=days,
            c=currency,
            price=price,
            valid_from=valid_from,
            includes_tax=includes_tax,
        )

    def subscription(
        self,
        customer: int,
        plan: int,
        started_on: date = TODAY,
        auto_renew: bool = True,
        price: str | None = None,
        cancelled_on: date | None = None,
        addons: tuple[int, ...] = (),
        quantity: int = 1,
    ) -> int:
        """An add-on that is named n times is sold n times."""
        self._count += 1
        subscription_id = self.sql(
            "INSERT INTO prepaid.subscriptions (subscription_ref, customer_id, plan_id, started_on,"
            " anchor_date, auto_renew, price, cancelled_on, quantity) VALUES (:ref, :customer,"
            " :plan, :started, :started, :renew, CAST(:price AS numeric), :cancelled, :quantity)"
            " RETURNING subscription_id",
            ref=f"S{self._count}",
            customer=customer,
            plan=plan,
            started=started_on,
            renew=auto_renew,
            price=price,
            cancelled=cancelled_on,
            quantity=quantity,
        )
        for addon in dict.fromkeys(addons):
            self.sql(
                "INSERT INTO prepaid.subscription_addons VALUES (:s, :a, :quantity)",
                s=subscription_id,
                a=addon,
                quantity=addons.count(addon),
            )
        return subscription_id

    def discount(
        self,
        subscription: int,
        percent: str | None = None,
        amount: str | None = None,
        terms: int | None = None,
        starts_on: date | None = None,
    ) -> int:
        self._count += 1
        return self.sql(
            "INSERT INTO prepaid.discounts (subscription_id, discount_code, name, percent, amount,"
            " terms, starts_on) VALUES (:s, :code, :name, CAST(:percent AS numeric),"
            " CAST(:amount AS numeric), :terms, :starts_on) RETURNING discount_id",
            s=subscription,
            code=f"discount-{self._count:03}",
            name=f"Discount {self._count}",
            percent=percent,
            amount=amount,
            terms=terms,
            starts_on=starts_on,
        )

    def term(
        self,
        subscription: int,
        start: date,
        end: date,
        status: str = "Active",
        anchor: date | None = None,
        previous: int | None = None,
        price: str = "10.00",
    ) -> int:
        """A term of imported history."""
        return self.sql(
            "INSERT INTO prepaid.service_plans (subscription_id, customer_id, plan_id,"
            " previous_plan_id, origin, kind, status, start_date, end_date, planned_start,"
            " anchor_date, term_months, term_days, currency, price, addons, net_amount,"
            " recurring_amount, activated_on) SELECT s.subscription_id, s.customer_id, s.plan_id,"
            " :previous, 'imported', CASE WHEN CAST(:previous AS bigint) IS NULL THEN 'new' ELSE"
            " 'renewal' END, :status, :start, :end, :start, :anchor, l.term_months, l.term_days,"
            " c.currency, CAST(:price AS numeric), '[]', CAST(:price AS numeric),"
            " CAST(:price AS numeric), CAST(:start AS date) FROM prepaid.subscriptions s"
            " JOIN prepaid.plans l USING (plan_id) JOIN prepaid.customers c USING (customer_id)"
            " WHERE s.subscription_id = :subscription RETURNING service_plan_id",
            previous=previous,
            status=status,
            start=start,
            end=end,
            anchor=anchor or start,
            subscription=subscription,
            price=price,
        )

    def order(
        self,
        previous: int,
        start: date,
        end: date,
        kind: str = "reactivation",
        price: str = "10.00",
    ) -> int:
        """An imported order of a returning customer, after the term ``previous``."""
        return self.sql(
            "INSERT INTO prepaid.service_plans (subscription_id, customer_id, plan_id,"
            " previous_plan_id, origin, kind, status, start_date, end_date, planned_start,"
            " anchor_date, term_months, term_days, currency, price) SELECT subscription_id,"
            " customer_id, plan_id, service_plan_id, 'pipeline', :kind, 'Pending', :start, :end,"
            " :start, :start, term_months, term_days, currency, CAST(:price AS numeric)"
            " FROM prepaid.service_plans WHERE service_plan_id = :previous"
            " RETURNING service_plan_id",
            previous=previous,
            start=start,
            end=end,
            kind=kind,
            price=price,
        )

    def due_renewal(self, ends_on: date = TODAY, **customer: Any) -> int:
        """A monthly subscription whose term ends on ``ends_on``; the id of the ended term."""
        start = date(
            ends_on.year - (ends_on.month == 1), (ends_on.month - 2) % 12 + 1, min(ends_on.day, 28)
        )
        subscription = self.subscription(self.customer(**customer), self.plan(), started_on=start)
        return self.term(subscription, start, ends_on)

    def open(self, at: Context | None = None) -> list[int]:
        """Steps 0-5 for everything that is due; the ids of all pipeline plans."""
        at = at or context()
        steps.open_service_plans(self.engine, at)
        for batch_id in steps.claim_all(self.engine, "open_renewals", at):
            steps.run_batch(self.engine, "open_renewals", batch_id, at)
        return self.plans()

    def plans(self) -> list[int]:
        """The ids of all plans that the pipeline opened."""
        return [
            row[0]
            for row in self.rows(
                "SELECT service_plan_id FROM prepaid.service_plans WHERE origin = 'pipeline'"
                " ORDER BY 1"
            )
        ]

    def invoice(self, plan: int) -> str:
        return self.sql(
            "SELECT invoice_number FROM prepaid.invoices"
            " WHERE service_plan_id = :plan AND status <> 'Void'",
            plan=plan,
        )

    def record(
        self, invoice_number: str | None, amount: Decimal | str | None = None, **changes: Any
    ) -> int | None:
        """A provider's record; by default the one that fits the invoice."""
        self._count += 1
        values = {
            "provider": "bank",
            "provider_ref": f"ref-{self._count}",
            "invoice_number": invoice_number,
            "amount": amount,
            "currency": "USD",
            "status": "Success",
            "occurred_at": "2026-11-02T10:00:00Z",
            "customer_ref": None,
        } | changes
        if amount is None:
            values["amount"] = self.sql(
                "SELECT payable FROM prepaid.invoices WHERE invoice_number = :n", n=invoice_number
            )
        return self.sql(
            "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount,"
            " currency, status, occurred_at, customer_ref) VALUES (:provider, :provider_ref,"
            " :invoice_number, CAST(:amount AS numeric), :currency, :status,"
            " CAST(:occurred_at AS timestamptz), :customer_ref) RETURNING transaction_id",
            **values,
        )

    def task(self, plan: int, kind: str = "payment_verification") -> int:
        """The live task of a plan."""
        return self.sql(
            "SELECT max(task_id) FROM prepaid.tasks WHERE service_plan_id = :plan AND kind = :kind"
            " AND status <> 'Withdrawn'",
            plan=plan,
            kind=kind,
        )

    def officer(self, name: str = "test_officer", team: str = "finance") -> str:
        accounts.add(self.engine, name, team)
        return name

    def approve(self, *plans: int, word: str = "approve", note: str | None = None) -> None:
        tasks = [self.task(plan) for plan in plans]
        decisions.decide(self.engine, self.officer(), tasks, word, note)

    def cancel(self, *plans: int) -> None:
        """Cancel plans before their activation."""
        with self.engine.begin() as connection:
            named = {"plans": list(plans)}
            for statement in (
                "SELECT prepaid.close_waiting_plans(CAST(:plans AS bigint[]))",
                "UPDATE prepaid.service_plans SET status = 'Cancelled'"
                " WHERE service_plan_id = ANY (:plans)",
            ):
                connection.execute(text(statement), named)

    def match(self, at: Context | None = None) -> dict[str, int]:
        return payment_matching.match_payments(self.engine, at or context())

    def settle(self, at: Context | None = None) -> None:
        """Steps 6-11 for everything that is ready."""
        at = at or context()
        for batch_id in steps.claim_all(self.engine, "settle_renewals", at):
            steps.run_batch(self.engine, "settle_renewals", batch_id, at)

    def pay(self, *plans: int) -> None:
        """A record for each invoice that fits it, matched."""
        for plan in plans:
            self.record(
                self.invoice(plan),
                currency=self.sql(
                    "SELECT currency FROM prepaid.service_plans WHERE service_plan_id = :p", p=plan
                ),
            )
        self.match()

    def pay_and_approve(self, *plans: int) -> None:
        self.pay(*plans)
        self.approve(*plans)

    def status(self, plan: int) -> str:
        return self.sql(
            "SELECT status FROM prepaid.service_plans WHERE service_plan_id = :plan", plan=plan
        )

    def holds(self, plan: int) -> list[str]:
        """The reason codes of a plan's live holds."""
        return [
            row[0]
            for row in self.rows(
                "SELECT reason_code FROM prepaid.holds WHERE service_plan_id = :plan"
                " AND released_at IS NULL ORDER BY 1",
                plan=plan,
            )
        ]

    def dump(self) -> dict[str, list[str]]:
        """The process's tables without ids, clock times and who did it; sorted rows as text.

        A row keeps which of its volatile columns are set: a step that forgot its mark shows.
        """
        return {table: self._table(table) for table in TABLES}

    def _table(self, table: str) -> list[str]:
        with self.engine.connect() as connection:
            result = connection.execute(text(f"SELECT * FROM prepaid.{table}"))  # noqa: S608
            return sorted(
                str({k: (v is not None if _VOLATILE.search(k) else v) for k, v in row.items()})
                for row in result.mappings()
            )
