"""Any days on which the job runs, in any order, against a model in plain Python."""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.billing.dunning.conftest import dun, mails, unpaid
from tests.budget import examples
from tests.world import World

DAYS = st.integers(0, 45)
EVENTS = st.lists(
    st.one_of(DAYS.map(lambda day: ("run", day)), st.sampled_from([("pay", 0), ("match", 0)])),
    max_size=12,
)
REMINDERS = st.lists(st.integers(1, 30), unique=True, max_size=4).map(sorted).map(tuple)


@dataclass
class Invoice:
    """What is to happen to one invoice."""

    reminders: tuple[int, ...]
    last_day: int | None
    sent: list[int] = field(default_factory=list)
    landed: bool = False
    matched: bool = False
    cancelled: bool = False

    def run(self, day: int) -> None:
        if self.landed or self.cancelled:
            return
        if self.last_day is not None and day > self.last_day:
            self.cancelled = True
            return
        reached = [reminder for reminder in self.reminders if reminder <= day]
        if reached and all(reached[-1] > earlier for earlier in self.sent):
            self.sent.append(reached[-1])

    def pay(self) -> None:
        self.landed = True

    def match(self) -> None:
        self.matched = self.matched or (self.landed and not self.cancelled)


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    reminders=REMINDERS,
    room=st.none() | st.integers(1, 10),
    events=EVENTS,
)
def test_reminders_and_the_cancellation(
    module_world: World,
    reminders: tuple[int, ...],
    room: int | None,
    events: list[tuple[str, int]],
) -> None:
    world = module_world
    if not world.sql("SELECT count(*) FROM prepaid.tax_rates"):
        world.tax_rate("0.0725")
    last_day = None if room is None else (reminders[-1] if reminders else 0) + room
    model = Invoice(reminders, last_day)
    (plan,) = unpaid(world)
    number, total = world.rows(
        "SELECT invoice_number, total FROM prepaid.invoices WHERE service_plan_id = :p", p=plan
    )[0]

    for event, day in events:
        if event == "run":
            dun(world, day, reminder_days=reminders, payment_days=last_day)
            model.run(day)
        elif event == "match":
            world.match()
            model.match()
        elif not model.landed:
            world.record(number, str(total))
            model.pay()
        assert mails(world, plan) == [f"{number} day {sent}" for sent in model.sent]
        assert world.status(plan) == ("Cancelled" if model.cancelled else "Pending")
        told = mails(world, plan, template="unpaid_cancellation")
        assert told == ([number] if model.cancelled else [])

    world.match()
    model.match()
    outcome = world.sql(
        "SELECT outcome FROM prepaid.transactions WHERE invoice_number = :n", n=number
    )
    expected = "matched" if model.matched else "parked" if model.landed else None
    assert outcome == expected
    # The next example's job has nothing to do with this plan.
    if world.status(plan) == "Pending":
        world.cancel(plan)
