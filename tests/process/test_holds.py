"""One bad plan is held with a reason that a person can act on; the others go on."""

from datetime import date
from decimal import Decimal

import pytest

from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.world import World, context


@pytest.fixture(autouse=True)
def _tax(world: World) -> None:
    world.tax_rate("0.0725")


def _no_email(world: World) -> int:
    world.due_renewal(email=None)
    return 0


def _mend_email(world: World) -> None:
    world.sql("UPDATE prepaid.customers SET email = 'now@example.com' WHERE email IS NULL")


def _no_price(world: World) -> int:
    world.subscription(world.customer(), world.plan(price=None))
    return 0


def _mend_price(world: World) -> None:
    world.sql("UPDATE prepaid.plan_prices SET price = 5 WHERE price IS NULL")


def _no_tax_rate(world: World) -> int:
    world.due_renewal(country="JP")
    return 0


def _mend_tax_rate(world: World) -> None:
    world.tax_rate("0.10", country="JP")


def _no_addon_price(world: World) -> int:
    addon = world.addon(None)
    world.subscription(world.customer(), world.plan(), addons=(addon,))
    return addon


def _mend_addon_price(world: World) -> None:
    world.sql(
        "INSERT INTO prepaid.addon_prices SELECT addon_id, 1, 0, 'USD', 2 FROM prepaid.addons"
    )


_CASES = {
    "no_email": (_no_email, _mend_email, "has no email address"),
    "no_price": (_no_price, _mend_price, "has no price in USD on 2026-11-02 and subscription"),
    "no_tax_rate": (_no_tax_rate, _mend_tax_rate, "for standard in JP on 2026-11-02"),
    "no_addon_price": (_no_addon_price, _mend_addon_price, "add-on addon-"),
}


@pytest.mark.parametrize("reason", _CASES)
def test_a_bad_plan_is_held_mended_released_and_finished(world: World, reason: str) -> None:
    spoil, mend, words = _CASES[reason]
    world.due_renewal()
    spoil(world)
    plans = world.open()
    (bad,) = [plan for plan in plans if world.holds(plan)]
    (good,) = set(plans) - {bad}
    assert world.holds(bad) == [reason]
    assert words in world.sql("SELECT text FROM prepaid.holds")
    assert world.invoice(good)
    assert world.invoice(bad) is None

    world.open()
    assert world.invoice(bad) is None
    assert world.sql("SELECT count(*) FROM prepaid.holds") == 1

    mend(world)
    decisions.release(world.engine, world.officer("test_engineer", "engineering"), bad, "mended")
    world.open()
    assert world.holds(bad) == []
    assert world.invoice(bad)


def test_released_without_being_mended_it_is_held_again(world: World) -> None:
    _no_email(world)
    (plan,) = world.open()
    decisions.release(world.engine, world.officer("test_engineer", "engineering"), plan, "tried")
    world.open()
    assert world.holds(plan) == ["no_email"]
    assert world.sql("SELECT count(*) FROM prepaid.holds") == 2


def test_a_plan_with_two_faults_says_both(world: World) -> None:
    world.subscription(world.customer(email=None), world.plan(price=None))
    (plan,) = world.open()
    assert world.holds(plan) == ["no_email", "no_price"]


@pytest.mark.parametrize("step", steps.STEPS)
def test_a_failing_statement_holds_only_the_plan_that_breaks_it(world: World, step: str) -> None:
    """A trigger refuses one plan of nine, in each step in turn, as a fault in its data would."""
    for _ in range(9):
        world.due_renewal()
    at = context()
    steps.open_service_plans(world.engine, at)
    plans = world.plans()
    if step in steps.SETTLING_STEPS:
        world.open()
        world.pay_and_approve(*plans)
    bad = plans[4]
    _refuse(world, step, bad)
    if step == "check_payment_status":
        _misfit(world, bad, "another customer")
    queue = "settle_renewals" if step in steps.SETTLING_STEPS else "open_renewals"
    (batch,) = steps.claim_all(world.engine, queue, at)
    results = {r.step: r for r in steps.run_batch(world.engine, queue, batch, at)}

    assert (results[step].taken, results[step].finished, results[step].held) == (9, 8, 1)
    assert world.holds(bad) == ["step_failed"]
    assert f"Step {step} failed: refused" in world.sql("SELECT text FROM prepaid.holds")
    last = steps.QUEUES[queue][-1]
    assert (results[last].finished, world.sql("SELECT count(*) FROM prepaid.holds")) == (8, 1)

    world.sql("DROP FUNCTION refuse CASCADE")
    if step == "check_payment_status":
        _misfit(world, bad, None)
    decisions.release(world.engine, world.officer("test_engineer", "engineering"), bad, "mended")
    if queue == "open_renewals":
        world.open()
        assert world.invoice(bad)
    else:
        world.settle()
        assert world.status(bad) == "Active"
        assert not world.rows("SELECT FROM prepaid.unsettled_plans")


# Which write of each step the trigger refuses: table and moment.
_WRITES = {
    "retrieve_subscription_details": ("service_plans", "NEW.retrieved_at IS NOT NULL"),
    "mark_plans_processing": ("service_plans", "NEW.status = 'Processing'"),
    "calculate_invoice_totals": ("charges", "true"),
    "create_invoices": ("invoices", "true"),
    "assign_payment_verification": ("tasks", "true"),
    # It writes nothing for a plan whose payment fits; _misfit sees to it that this one's does not.
    "check_payment_status": ("holds", "NEW.reason_code = 'payment_mismatch'"),
    "mark_invoices_paid": ("invoices", "NEW.status = 'Paid'"),
    "activate_service_plans": ("service_plans", "NEW.status = 'Active'"),
    "write_provisioning_log": ("audit_log", "NEW.event = 'service_provisioned'"),
    "send_activation_confirmations": ("emails", "true"),
    "assign_quality_checks": ("tasks", "NEW.kind = 'quality_check'"),
}


def _refuse(world: World, step: str, plan: int) -> None:
    table, moment = _WRITES[step]
    world.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'refused'; END $$"
    )
    world.sql(
        f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON prepaid.{table} FOR EACH ROW"
        f" WHEN (NEW.service_plan_id = {plan} AND {moment}) EXECUTE FUNCTION refuse()"
    )


def _misfit(world: World, plan: int, customer_ref: str | None) -> None:
    world.sql(
        "UPDATE prepaid.transactions SET customer_ref = :ref WHERE invoice_id ="
        " (SELECT invoice_id FROM prepaid.invoices WHERE service_plan_id = :plan)",
        ref=customer_ref,
        plan=plan,
    )


def test_a_fault_that_is_nobodys_stops_the_step_and_holds_nothing(world: World) -> None:
    world.due_renewal()
    at = context()
    steps.open_service_plans(world.engine, at)
    (batch,) = steps.claim_all(world.engine, "open_renewals", at)
    world.sql("ALTER TABLE prepaid.charges RENAME COLUMN net TO gross")
    with pytest.raises(Exception, match=r"gross|net"):
        steps.run_batch(world.engine, "open_renewals", batch, at)
    assert world.sql("SELECT count(*) FROM prepaid.holds") == 0


def test_a_term_that_waits_takes_the_plan_that_the_subscription_has_then(world: World) -> None:
    """The customer moves from a month to a year while the month's plan is held."""
    subscription = world.subscription(world.customer(email=None), world.plan("10.00"), price="9.00")
    (plan,) = world.open()
    world.sql(
        "UPDATE prepaid.subscriptions SET plan_id = :year, price = 90 WHERE subscription_id = :s",
        year=world.plan("100.00", months=12),
        s=subscription,
    )
    _mend_email(world)
    decisions.release(world.engine, world.officer(), plan, "address added")
    world.open()
    assert world.rows(
        "SELECT p.term_months, p.end_date - p.start_date, i.net FROM prepaid.service_plans p"
        " JOIN prepaid.invoices i USING (service_plan_id)"
    ) == [(12, 365, Decimal("90.00"))]


def test_a_price_agreed_for_another_plan_is_not_charged_for_an_order(world: World) -> None:
    """An order keeps the plan and the price that it came with."""
    subscription = world.subscription(world.customer(), world.plan("10.00"), date(2025, 1, 1))
    old = world.term(subscription, date(2025, 1, 1), date(2025, 2, 1), status="Expired")
    world.order(old, date(2026, 11, 5), date(2026, 12, 5), price="7.77")
    world.sql(
        "UPDATE prepaid.subscriptions SET plan_id = :year, price = 90 WHERE subscription_id = :s",
        year=world.plan("100.00", months=12),
        s=subscription,
    )
    world.open()
    assert world.rows(
        "SELECT p.term_months, i.net FROM prepaid.service_plans p JOIN prepaid.invoices i"
        " USING (service_plan_id)"
    ) == [(1, Decimal("7.77"))]
