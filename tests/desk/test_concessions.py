"""Finance decides on prices below the list, and on payments that nothing has paid yet."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal

from prepaid_pipeline.billing import subscriptions
from tests.desk.conftest import Browser
from tests.desk.test_forms import message, seen
from tests.world import TODAY, World

Browsers = Callable[..., Browser]


def asked(world: World, care: str) -> int:
    """A plan that customer success would give away; its task."""
    world.tax_rate("0.10")
    basic = world.plan("10.00")
    subscription = world.subscription(world.customer(), basic, date(2026, 10, 2))
    world.term(subscription, date(2026, 10, 2), TODAY)
    code = world.sql("SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=basic)
    subscriptions.change(
        world.engine,
        care,
        subscriptions.Named(subscription, None),
        subscriptions.Change(code, Decimal("2.50")),
        "he <b>threatens</b> to leave",
        as_of=TODAY,
    )
    (plan,) = world.open()
    return world.task(plan, "price_concession")


def test_a_price_is_seen_and_approved(world: World, browser: Browsers) -> None:
    care, finance = browser("customer_success"), browser("finance")
    task = asked(world, care.name)
    (plan,) = world.plans()
    assert "Prices to approve" in finance.get("/").text
    page = finance.get("/concessions?search=threat").text
    assert "No price matches this filter" in page
    page = finance.get("/concessions").text
    assert f'href="/concessions/{task}"' in page
    assert "Its own price is 2.50, the list price 10.00" in page
    page = finance.get(f"/concessions/{task}").text
    assert "<h1>2.50 USD instead of 10.00 USD</h1>" in page
    assert f"by {care.name}: he &lt;b&gt;threatens&lt;/b&gt; to leave" in page
    assert care.get("/concessions").status_code == 403
    finance.get(f"/concessions/{task}")
    finance.post(f"/concessions/{task}/decide", decision="rejected", seen=seen(finance))
    assert message(finance) == (
        f"Not done. Task {task} cannot be decided: rejected needs a note that says why."
    )
    finance.get(f"/concessions/{task}")
    finance.post(f"/concessions/{task}/decide", decision="rejected", seen="0", note="too cheap")
    assert message(finance).startswith("Done. Price rejected: the plan stays held")
    finance.get(f"/concessions/{task}")
    finance.post(f"/concessions/{task}/decide", decision="approved", seen=seen(finance))
    assert message(finance) == "Done. Price approved: the plan continues."
    world.open()
    assert world.sql(
        "SELECT net FROM prepaid.invoices WHERE service_plan_id = :p", p=plan
    ) == Decimal("2.50")


def test_nothing_to_approve_says_what_to_do(world: World, browser: Browsers) -> None:
    """No button that has no effect; a rejection is offered all the same."""
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    finance = browser("finance")
    page = finance.get(f"/payments/{world.task(plan)}").text
    assert "There is nothing to approve yet:" in page
    assert "Wait for the record, or assign a parked one to the invoice" in page
    assert 'value="approved"' not in page
    assert 'value="rejected"' in page
    finance.post(f"/payments/{world.task(plan)}/decide", decision="approved", seen="0")
    assert "there is nothing to approve: no record from a payment provider yet" in message(finance)
