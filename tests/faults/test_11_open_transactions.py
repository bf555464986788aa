"""Fault 11: people leave transactions open. The pipeline ends their sessions and goes on."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from prepaid_pipeline.billing import payment_matching
from prepaid_pipeline.database import connections, waits
from prepaid_pipeline.people import accounts
from prepaid_pipeline.settings.load import Settings
from tests.faults.business import Business
from tests.faults.recorder import Recorder
from tests.faults.sink import Sink
from tests.process.blocked import is_ended
from tests.world import context

pytestmark = pytest.mark.fault

_OPEN = {
    "an approval": "UPDATE prepaid.payment_verifications SET decision = 'approved'"
    " WHERE status = 'Open' AND may_decide",
    "a rejection": "UPDATE prepaid.payment_verifications SET decision = 'rejected', note = 'no'"
    " WHERE status = 'Open' AND may_decide",
    "a cancellation": "SELECT prepaid.cancel(subscription_id, NULL, true, NULL, 'left')"
    " FROM prepaid.service_plans WHERE service_plan_id ="
    " (SELECT max(service_plan_id) FROM prepaid.invoices)",
    "a voided invoice": "SELECT prepaid.void_invoice(invoice_number, true, 'wrong')"
    " FROM prepaid.invoices WHERE service_plan_id ="
    " (SELECT max(service_plan_id) FROM prepaid.invoices)",
}


@pytest.fixture
def watched(settings: Settings, sink: Sink) -> Iterator[Business]:
    """A business whose sessions nobody may block for longer than a second."""
    soon = settings.model_copy(update={"blocked_seconds": 1})
    engine = connections.engine(soon)
    business = Business(engine, soon, sink)
    business.open_for_business()
    yield business
    engine.dispose()


@contextmanager
def person(business: Business) -> Iterator[psycopg.Connection[Any]]:
    """Somebody of finance in an SQL session, which nothing of their own ends."""
    name = f"faults_{uuid.uuid4().hex[:8]}"
    accounts.add(business.engine, name, "finance")
    with business.engine.begin() as connection:
        connection.execute(text(f'ALTER ROLE "{name}" LOGIN'))
    url = business.engine.url.set(drivername="postgresql", username=name)
    with psycopg.connect(url.render_as_string(hide_password=False)) as session:
        session.execute("SET idle_in_transaction_session_timeout = 0")
        session.commit()
        yield session


@pytest.mark.parametrize(
    "acts",
    [
        pytest.param(["a rejection"], marks=pytest.mark.smoke),
        [act for act in _OPEN if act != "a rejection"],
    ],
    ids=["one", "others"],
)
def test_what_they_have_not_committed_is_undone(
    watched: Business, record: Recorder, acts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "PATIENCE_SECONDS", 1.2)
    monkeypatch.setattr(waits, "_LOOK_SECONDS", 0.2)
    wrong = list[str]()
    for act in acts:
        watched.add(1)
        watched.invoice()
        watched.pay()
        payment_matching.match_payments(watched.engine, context())
        with person(watched) as session:
            session.execute(_OPEN[act])  # type: ignore[arg-type]
            watched.finish()
            if not is_ended(session):
                wrong.append(f"{act}: the session is still there")
        wrong += watched.wrong()
    noted = watched.world.sql(
        "SELECT count(*) FROM prepaid.audit_log WHERE event = 'blocking_session_ended'"
    )
    if noted != len(acts):
        wrong.append(f"{noted} sessions are in the audit log, {len(acts)} were ended")
    record(
        fault=11,
        points=len(acts),
        violations=len(wrong),
        what=f"left open while the pipeline works, with all timeouts off: {', '.join(acts)}",
    )
    assert wrong == []
