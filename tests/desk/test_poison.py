"""Records that nobody can bear are shown like any other."""

from collections.abc import Callable

from tests.billing.payments.poison import Usual, land, records
from tests.desk.conftest import Browser
from tests.world import World

_PAGES = (
    "/",
    "/payments?show=all",
    "/parked",
    "/held",
    "/plans?name=INV-2026-000001",
    "/history",
)


def test_every_page_is_shown(world: World, browser: Callable[..., Browser]) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    land(world, records(Usual(world.invoice(plan), "C1")))
    world.match()
    finance = browser("finance")
    reviews = [
        task
        for (task,) in world.rows(
            "SELECT max(task_id) FROM prepaid.tasks k JOIN prepaid.transactions t USING"
            " (transaction_id) WHERE k.status = 'Open'"
            " GROUP BY t.as_delivered, t.status ORDER BY 1"
        )
    ]
    assert len(reviews) > 10
    pages = [f"/plans/{plan}", f"/payments/{world.task(plan)}", *(f"/parked/{r}" for r in reviews)]
    for page in (*_PAGES, *pages):
        answer = finance.get(page)
        assert answer.status_code == 200, page


def test_what_was_delivered_is_shown(world: World, browser: Callable[..., Browser]) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    usual = Usual(world.invoice(plan), "C1")
    land(world, [usual.but(amount="1e20", occurred_at="10000-01-01 00:00+00", customer_ref="C9")])
    world.match()
    review = world.task(plan, "payment_review")
    page = browser("finance").get(f"/parked/{review}").text
    assert "As delivered" in page
    assert "100000000000000000000" in page
    assert "10000-01-01" in page
