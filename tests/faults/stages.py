"""The stages of a plan's way, each with plans that wait just before it, one job after the other."""

from collections.abc import Iterator
from dataclasses import dataclass

from prepaid_pipeline.billing import payment_matching
from prepaid_pipeline.process import steps
from tests.faults.business import CHANGE, GOING_ON, PURCHASE, RENEWALS, Business
from tests.world import context


@dataclass(frozen=True)
class Stage:
    """``groups``: how many jobs are prepared, more than there are moments in one of them."""

    name: str
    groups: int = 32

    def jobs(self, business: Business) -> Iterator[dict[str, object]]:
        """Jobs that are as good as each other: each finds plans of its own to work on."""
        kind, _, step = self.name.partition(" ")
        yield from _KINDS[kind](business, step, self.groups)


def _open(business: Business, _: str, groups: int) -> Iterator[dict[str, object]]:
    for _group in range(groups):
        business.add(1, (*RENEWALS, PURCHASE))
        yield {"work": "open"}


def _claim(business: Business, queue: str, groups: int) -> Iterator[dict[str, object]]:
    if queue == "open_renewals":
        business.add(groups, GOING_ON)
        steps.open_service_plans(business.engine, context())
    else:
        _until_settling(business, groups, GOING_ON)
    for _group in range(groups):
        yield {"work": "claim", "queue": queue, "size": len(GOING_ON)}


def _step(business: Business, step: str, groups: int) -> Iterator[dict[str, object]]:
    queue = "settle_renewals" if step in steps.SETTLING_STEPS else "open_renewals"
    situations = RENEWALS if step == next(iter(steps.OPENING_STEPS)) else GOING_ON
    if queue == "settle_renewals":
        _until_settling(business, groups, situations)
    else:
        business.add(groups, situations)
        steps.open_service_plans(business.engine, context())
    business.through(queue, before=step)
    for _group in range(groups):
        yield {"work": "step", "step": step, "batch": business.claim(queue, len(situations))}


def _change(business: Business, step: str, groups: int) -> Iterator[dict[str, object]]:
    _until_settling(business, groups, (CHANGE,))
    business.through("settle_renewals", before=step)
    for _group in range(groups):
        yield {"work": "step", "step": step, "batch": business.claim("settle_renewals", 1)}


def _match(business: Business, _: str, groups: int) -> Iterator[dict[str, object]]:
    business.add(groups, GOING_ON)
    business.invoice()
    for _group in range(groups):
        business.pay(2)
        yield {"work": "match"}


def _decide(business: Business, _: str, groups: int) -> Iterator[dict[str, object]]:
    business.add(groups, GOING_ON)
    business.invoice()
    business.pay()
    payment_matching.match_payments(business.engine, context())
    tasks = business.do("undecided", kind="payment_verification", limit=groups)
    for task in tasks:
        yield {"work": "decide", "person": "faults_clerk", "tasks": [task], "word": "approve"}


def _mail(business: Business, _: str, groups: int) -> Iterator[dict[str, object]]:
    _until_settling(business, groups, GOING_ON)
    business.through("settle_renewals")
    for _mail in range(groups * len(GOING_ON)):
        business.sink.extra += 1
        yield {"work": "mail", "size": 1}


def _quality(business: Business, _: str, groups: int) -> Iterator[dict[str, object]]:
    _until_settling(business, groups, GOING_ON)
    business.through("settle_renewals")
    for _group in range(groups):
        business.approve("quality_check", 2)
        yield {"work": "quality"}


def _until_settling(business: Business, groups: int, situations: tuple[int, ...]) -> None:
    business.add(groups, situations)
    business.invoice()
    business.pay()
    payment_matching.match_payments(business.engine, context())
    business.approve()


_KINDS = {
    "open": _open,
    "claim": _claim,
    "step": _step,
    "change": _change,
    "match": _match,
    "decide": _decide,
    "mail": _mail,
    "quality": _quality,
}

# Twice as many groups as there are moments, and some more: each of two faults at each of them.
_GROUPS = {
    "retrieve_subscription_details": 56,
    "assign_payment_verification": 60,
    "activate_service_plans": 60,
    "assign_quality_checks": 60,
}
OPENING = (
    Stage("open", 40),
    Stage("claim open_renewals", 24),
    *(Stage(f"step {name}", _GROUPS.get(name, 48)) for name in steps.OPENING_STEPS),
    Stage("match", 120),
)
SETTLING = (
    Stage("decide", 36),
    Stage("claim settle_renewals", 24),
    *(Stage(f"step {name}", _GROUPS.get(name, 48)) for name in steps.SETTLING_STEPS),
    Stage("change activate_service_plans", 60),
    Stage("mail", 48),
    Stage("quality", 32),
)
