"""Customers and people while faults happen: each repeats only what was not confirmed to it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.people import decisions
from tests.faults.business import GOING_ON, Business
from tests.faults.work import is_lost
from tests.world import TODAY


@dataclass
class Clients:
    """``decided``: the tasks whose decision was confirmed. ``failed``: what no client expects."""

    business: Business
    groups: int
    pause: float
    decided: dict[int, str] = field(default_factory=dict)
    ordered: int = 0
    failed: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over, self._before = threading.Event(), self.business.made_before
        work = (self._order, self._pay, self._approve, self._check_quality)
        self._threads = [threading.Thread(target=self._again, args=(w,)) for w in work]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _again(self, work: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                work()
            except DBAPIError as error:
                if not is_lost(error):
                    self.failed.append(error)
                    return
            except BaseException as error:
                self.failed.append(error)
                return
            time.sleep(self.pause)

    def _order(self) -> None:
        """Ten more groups of plans that are due, as long as there are to be more."""
        if self.ordered >= self.groups:
            return
        first = self._before + self.ordered + 1
        # Not confirmed is not the same as not done.
        known = "SELECT count(*) FROM prepaid.subscriptions WHERE subscription_ref = :ref"
        if not self.business.world.sql(known, ref=f"F0-{first}"):
            self.business.add(10, GOING_ON, first=first)
        self.ordered += 10

    def _pay(self) -> None:
        # A record that was stored without our hearing of it is not asked for again: see 'pay'.
        self.business.pay(50)

    def _approve(self) -> None:
        self._decide("payment_verification", "faults_clerk")

    def _check_quality(self) -> None:
        self._decide("quality_check", "faults_care")

    def _decide(self, kind: str, person: str) -> None:
        business = self.business
        part = "agreeing" if kind == "payment_verification" else "undecided"
        tasks = business.do(part, kind=kind, limit=25)
        if tasks:
            decisions.decide(business.engine, person, tasks, "approve", None, TODAY)
            self.decided |= dict.fromkeys(tasks, person)

    def lost(self) -> list[int]:
        """The tasks whose confirmed decision is not there."""
        stored = dict(self.business.world.rows("SELECT task_id, decided_by FROM prepaid.sign_offs"))
        return [task for task, person in self.decided.items() if stored.get(task) != person]
