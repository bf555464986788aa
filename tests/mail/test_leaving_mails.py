"""The mails of leaving and changing."""

from collections.abc import Callable
from datetime import date

from prepaid_pipeline.mail.sender import send_emails
from prepaid_pipeline.settings.load import Settings
from tests.billing.dunning.test_mails import bodies, sent
from tests.billing.subscriptions.test_cancelling import active, cancel
from tests.billing.subscriptions.test_changing import change, settle
from tests.people.conftest import person
from tests.world import World, context

__all__ = ["person"]
Person = Callable[[World, str], str]
DAY = date(2026, 11, 12)


def last_mail(world: World, settings: Settings) -> tuple[str, list[str]]:
    send_emails(world.engine, settings, as_of=DAY)
    mail = sent(settings)[-1]
    return mail["Subject"], bodies(mail)


def test_at_once(world: World, settings: Settings, person: Person) -> None:
    world.tax_rate("0.0725")
    subscription, _ = active(world, "30.00")
    cancel(world, person(world, "finance"), subscription, as_of=DAY)
    subject, texts = last_mail(world, settings)
    name = world.sql("SELECT plan_name FROM prepaid.service_plans")
    assert subject == f"Your plan {name} is cancelled"
    for text in texts:
        assert f"Your plan {name} is cancelled as of 12 November 2026." in text
        assert "Credit note CN-2026-000001: 21.45 USD for the unused days." in text
        assert "We will refund 21.45 USD." in text


def test_at_the_end_of_the_term(world: World, settings: Settings, person: Person) -> None:
    """Of imported history too: its term has no snapshot of the plan's and customer's names."""
    customer, plan = world.customer(), world.plan("30.00")
    subscription = world.subscription(customer, plan, date(2026, 11, 2))
    world.term(subscription, date(2026, 11, 2), date(2026, 12, 2))
    cancel(world, person(world, "finance"), subscription, as_of=DAY, at_once=False)
    _, texts = last_mail(world, settings)
    for text in texts:
        assert "Hello Customer 1," in text
        assert "Your plan Plan 2 is cancelled." in text
        assert "You can use it until 1 December 2026." in text
        assert "Credit note" not in text


def test_a_change_shows_what_the_credit_paid(
    world: World, settings: Settings, person: Person
) -> None:
    world.tax_rate("0.0725")
    subscription, _ = active(world, "30.00")
    waiting = change(world, person(world, "finance"), subscription, world.plan("60.00"))
    assert waiting is not None
    world.open(context(DAY))
    settle(world, waiting.service_plan_id)
    subject, texts = last_mail(world, settings)
    assert subject.endswith("is your new plan")
    for text in texts:
        assert "Your plan has been changed." in text
        for part in (
            "Unused days, credit note CN-2026-000001",
            "-21.45",
            "To pay",
            "42.90",
            "64.35",
        ):
            assert part in text
