"""Every act that a person can do by a function of the database, on a plan made for it.

``ACTS`` is held to the catalogue by test_both_orders.py: a new function that a team may call needs a row
here, and says whether it gives its person a hand in what is paid.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import text

from prepaid_pipeline.database.connections import acting_as
from tests.world import TODAY, World

BIGGER = "all-acts-bigger"


@dataclass(frozen=True)
class Scene:
    """One invoiced plan with a payment that fits; ``spare`` is a parked record that would pay it too."""

    plan: int
    subscription: int
    customer: int
    invoice: str
    spare: int
    hold: str
    mail: int
    previous: int
    customer_ref: str


@dataclass(frozen=True)
class Act:
    """``function``: as the catalogue names it. ``hand``: whoever does it is no approver."""

    function: str
    call: str
    hand: bool = True
    kind: str = ""

    def do(self, world: World, person: str, scene: Scene) -> Any:
        """Under the person's own role; the database's refusal is an answer as well."""
        named = {**scene.__dict__, "bigger": BIGGER, "person": person}
        if self.kind:
            named["task"] = world.task(scene.plan, self.kind)
        statement = text(self.call)
        with acting_as(world.engine, person, TODAY) as connection:
            used = {name: named[name] for name in statement._bindparams}
            return connection.execute(statement, used).all()


APPROVE = Act(
    "decide_tasks",
    "SELECT prepaid.decide_tasks(ARRAY[CAST(:task AS bigint)], 'approved', 'seen')",
    hand=False,
    kind="payment_verification",
)
ACTS = [
    APPROVE,
    Act(
        "decide_as_seen",
        "SELECT prepaid.decide_as_seen(ARRAY[CAST(:task AS bigint)], ARRAY[(SELECT"
        " coalesce(max(sign_off_id), 0) FROM prepaid.sign_offs WHERE task_id = :task)], 'approved',"
        " 'seen', false)",
        hand=False,
        kind="payment_verification",
    ),
    Act("assign_record", "SELECT prepaid.assign_record(:spare, :invoice, 'it is for this one')"),
    Act("release_holds", "SELECT prepaid.release_holds(:plan, 'cleared up')"),
    Act("void_invoice", "SELECT prepaid.void_invoice(:invoice, true, 'wrong')"),
    Act(
        "change_plan",
        "SELECT prepaid.change_plan(:subscription, :bigger, 9, NULL, NULL, 'asked')",
    ),
    Act("cancel", "SELECT * FROM prepaid.cancel(:subscription, :previous, false, NULL, 'leaves')"),
    Act("set_customer_email", "SELECT prepaid.set_customer_email(:plan, 'new@example.com')"),
    Act(
        "correct_email_address", "SELECT prepaid.correct_email_address(:mail, 'right@example.com')"
    ),
    # Refused while anything of the customer is open, so that there is nothing to approve after it.
    Act("erase_customer", "SELECT prepaid.erase_customer(:customer_ref, 'asked')"),
    # Who is asked, and whether a mail goes out, changes nothing of what is paid.
    Act(
        "reassign_tasks",
        "SELECT prepaid.reassign_tasks(ARRAY[CAST(:task AS bigint)], :person, 'mine')",
        hand=False,
        kind="payment_verification",
    ),
    Act("resend_emails", "SELECT prepaid.resend_emails(ARRAY[CAST(:mail AS bigint)])", hand=False),
    Act(
        "settle_emails",
        "SELECT prepaid.settle_emails(ARRAY[CAST(:mail AS bigint)], 'arrived')",
        hand=False,
    ),
]


def scenes(world: World, count: int) -> list[Scene]:
    """So many plans, each of a customer of its own: paid, held by a hold that stands in nobody's way,
    with a spare record, and with an email that failed.
    """
    world.tax_rate("0.0725")
    world.sql(
        "WITH made AS (INSERT INTO prepaid.plans (plan_code, name, term_months) VALUES (:b, 'B', 1)"
        " RETURNING plan_id) INSERT INTO prepaid.plan_prices (plan_id, currency, price)"
        " SELECT plan_id, 'USD', 9 FROM made",
        b=BIGGER,
    )
    plan = world.plan()
    ended: dict[int, tuple[int, int]] = {}
    for _ in range(count):
        customer = world.customer()
        subscription = world.subscription(customer, plan, started_on=date(2026, 10, 2))
        ended[subscription] = (customer, world.term(subscription, date(2026, 10, 2), TODAY))
    plans = world.open()
    world.pay(*plans)
    made = []
    for opened in plans:
        (subscription,) = world.rows(
            "SELECT subscription_id FROM prepaid.service_plans WHERE service_plan_id = :p", p=opened
        )[0]
        customer, previous = ended[subscription]
        spare = world.record(None, "10.73")
        hold = world.sql(
            "INSERT INTO prepaid.holds (service_plan_id, reason_code, text) VALUES (:p,"
            " 'step_failed', 'x') RETURNING reason_code",
            p=opened,
        )
        mail = world.sql(
            "INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient, status)"
            " VALUES (:p, 'payment_reminder', 'day 3', 'a@example.com', 'failed')"
            " RETURNING email_id",
            p=opened,
        )
        assert spare
        made.append(
            Scene(
                opened,
                subscription,
                customer,
                world.invoice(opened),
                spare,
                hold,
                mail,
                previous,
                world.sql(
                    "SELECT customer_ref FROM prepaid.customers WHERE customer_id = :c", c=customer
                ),
            )
        )
    world.match()
    return made
