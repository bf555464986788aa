"""Payments that were taken back and credit notes, in the month in which it happened."""

import json
import random
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from prepaid_pipeline.database import queries
from prepaid_pipeline.revenue.report.content.figures import collect
from tests.budget import examples
from tests.revenue.history import Term, insert, publish, rows
from tests.world import World

D = date
PAID, BACK, AGAIN = "2026-02-27T10:00:00Z", "2026-03-05T10:00:00Z", "2026-04-02T10:00:00Z"


def invoice(engine: Engine, number: str = "INV-2026-000001", total: str = "100.00") -> str:
    """An open invoice of a term of its own, from 2026-02-01 on."""
    insert(engine, [Term(D(2026, 2, 1))])
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO prepaid.invoices (invoice_number, service_plan_id, customer_id,"
                " currency, net, tax, total, status, issued_on) SELECT :number, service_plan_id,"
                " customer_id, currency, CAST(:total AS numeric), 0, CAST(:total AS numeric),"
                " 'Open', '2026-02-01' FROM prepaid.service_plans"
                " ORDER BY service_plan_id DESC LIMIT 1"
            ),
            {"number": number, "total": total},
        )
    return number


def record(
    status: str, at: str | None, amount: str | None = "100.00", ref: str | None = "r1", **other: Any
) -> dict[str, Any]:
    return {
        "provider": "bank",
        "provider_ref": ref,
        "invoice_number": "INV-2026-000001",
        "amount": amount,
        "currency": "USD",
        "status": status,
        "occurred_at": at,
        **other,
    }


def land(engine: Engine, records: Sequence[dict[str, Any]]) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount,"
                " currency, status, occurred_at) SELECT * FROM jsonb_to_recordset("
                "CAST(:records AS jsonb)) r (provider text, provider_ref text, invoice_number text,"
                " amount numeric, currency text, status text, occurred_at timestamptz)"
            ),
            {"records": json.dumps(records)},
        )


def credit_note(engine: Engine, number: int, day: str, net: str, tax: str) -> None:
    """The credit note CN-<number> of the term with that place."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO prepaid.credit_notes (credit_note_number, service_plan_id,"
                " customer_id, currency, net, tax, total, reason, issued_on, issued_by)"
                " SELECT 'CN-' || :number, service_plan_id, customer_id, currency,"
                " CAST(:net AS numeric), CAST(:tax AS numeric),"
                " CAST(:net AS numeric) + CAST(:tax AS numeric), 'cancellation',"
                " CAST(:day AS date), 'someone' FROM prepaid.service_plans"
                " ORDER BY service_plan_id OFFSET :number LIMIT 1"
            ),
            {"number": number, "day": day, "net": net, "tax": tax},
        )


def reversals(engine: Engine) -> list[tuple[str, str, str, int, str]]:
    found = rows(
        engine,
        "SELECT to_char(month, 'YYYY-MM'), currency, kind, records, amount"
        " FROM revenue.payment_reversals ORDER BY 1, 2, 3",
    )
    return [(*row[:4], f"{row[4]:.2f}") for row in found]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        pytest.param(
            [record("Refunded", BACK)], [("2026-03", "Refunded", 1, "100.00")], id="refunded"
        ),
        pytest.param(
            [record("Refunded", BACK, "30.00"), record("Refunded", AGAIN, "20.00")],
            [("2026-03", "Refunded", 1, "30.00"), ("2026-04", "Refunded", 1, "20.00")],
            id="refunded in two parts",
        ),
        pytest.param(
            [record("Chargeback", BACK), record("ChargebackReversed", AGAIN)],
            [
                ("2026-03", "Chargeback", 1, "100.00"),
                ("2026-04", "ChargebackReversed", 1, "-100.00"),
            ],
            id="a chargeback and its reversal",
        ),
        pytest.param(
            [
                record("Chargeback", BACK),
                record("ChargebackReversed", AGAIN),
                record("Chargeback", BACK, currency="EUR", amount="90.00"),
            ],
            [
                ("2026-03", "Chargeback", 1, "100.00"),
                ("2026-04", "ChargebackReversed", 1, "-100.00"),
            ],
            id="the same event with other content counts once",
        ),
        pytest.param(
            [record("Failed", BACK)],
            [("2026-03", "Failed", 1, "100.00")],
            id="a Success that turned Failed",
        ),
        pytest.param(
            [record("Failed", PAID)],
            [("2026-02", "Failed", 1, "100.00")],
            id="at the same moment Failed is the later word",
        ),
        pytest.param(
            [record("Failed", "2026-02-01T10:00:00Z")], [], id="Failed before it succeeded"
        ),
        pytest.param(
            [record("Failed", BACK), record("Failed", AGAIN)],
            [("2026-03", "Failed", 1, "100.00")],
            id="Failed is told twice",
        ),
        pytest.param(
            [
                record("Failed", BACK),
                record("Success", "2026-03-06T10:00:00Z"),
                record("Failed", AGAIN),
            ],
            [("2026-03", "Failed", 1, "100.00"), ("2026-04", "Failed", 1, "100.00")],
            id="failed, succeeded and failed again",
        ),
        pytest.param(
            [record("Pending", BACK), record("gone wrong", AGAIN)],
            [],
            id="what is not known is not guessed",
        ),
        pytest.param(
            [record("Refunded", BACK, None)],
            [("2026-03", "Refunded", 1, "100.00")],
            id="without an amount: what was paid",
        ),
        pytest.param(
            [record("Refunded", BACK, "-100.00")],
            [("2026-03", "Refunded", 1, "100.00")],
            id="a negative amount is the same refund",
        ),
        pytest.param(
            [record("Refunded", BACK, "NaN")],
            [("2026-03", "Refunded", 1, "100.00")],
            id="no number: what was paid",
        ),
        pytest.param(
            [record("Refunded", BACK, currency=None)],
            [("2026-03", "Refunded", 1, "100.00")],
            id="without a currency: as paid",
        ),
        pytest.param([record("Refunded", BACK, currency="???")], [], id="no currency we know"),
        pytest.param(
            [record("Refunded", BACK, "15000", currency="JPY")],
            [],
            id="in another currency than the payment: a question to finance, none of its money",
        ),
        pytest.param(
            [record("Chargeback", BACK, "15000", currency="JPY"), record("Chargeback", BACK)],
            [("2026-03", "Chargeback", 1, "100.00")],
            id="of one event in two currencies the payment's counts, not the larger number",
        ),
        pytest.param(
            [record("Failed", BACK, "40.00")],
            [("2026-03", "Failed", 1, "100.00")],
            id="Failed is the whole payment, whatever it says",
        ),
        pytest.param(
            [record("Refunded", BACK, "60.00"), record("Refunded", AGAIN, "60.00")],
            [("2026-03", "Refunded", 1, "60.00"), ("2026-04", "Refunded", 1, "60.00")],
            id="more refunded than was paid: as the provider moved it",
        ),
        pytest.param(
            [record("Refunded", BACK, "9" * 131_000)],
            [("2026-03", "Refunded", 1, "100.00")],
            id="more than all money: what was paid",
        ),
        pytest.param([record("Refunded", "2962-03-05")], [], id="of a day to come"),
        pytest.param([record("Refunded", BACK, ref="other")], [], id="of a payment nobody knows"),
        pytest.param([record("Refunded", BACK, ref=None)], [], id="without a reference"),
        pytest.param([record("Refunded", None)], [], id="without a time: when it was received"),
    ],
)
def test_each_event_once_in_its_month(
    engine: Engine, records: list[dict[str, Any]], expected: list[tuple[Any, ...]]
) -> None:
    invoice(engine)
    land(engine, [record("Success", PAID), *records])
    publish(engine, "2026-01", "2026-05")
    found = [(month, *rest) for month, _, *rest in reversals(engine)]
    assert found == expected


@pytest.mark.parametrize(
    "at", [None, "infinity", "-infinity", "1970-01-01", "10000-01-01", "0001-01-01 BC"]
)
def test_a_time_that_nobody_believes_is_when_it_was_received(
    engine: Engine, at: str | None
) -> None:
    invoice(engine)
    land(engine, [record("Success", PAID), record("Chargeback", at)])
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE prepaid.transactions SET received_at = '2026-04-03 10:00Z'"
        )
    publish(engine, "2026-01", "2026-05")
    assert reversals(engine) == [("2026-04", "USD", "Chargeback", 1, "100.00")]


def test_the_payment_must_belong_to_an_invoice(engine: Engine) -> None:
    land(engine, [record("Success", PAID), record("Refunded", BACK)])
    publish(engine, "2026-03", "2026-03")
    assert reversals(engine) == []
    invoice(engine)
    publish(engine, "2026-03", "2026-03")
    assert len(reversals(engine)) == 1
    with engine.begin() as connection:  # a person assigned what named no invoice of ours
        connection.execute(
            text(
                "UPDATE prepaid.transactions SET invoice_number = 'unknown',"
                " invoice_id = (SELECT invoice_id FROM prepaid.invoices)"
            )
        )
    publish(engine, "2026-03", "2026-03")
    assert len(reversals(engine)) == 1


def test_only_what_had_happened_by_the_cut_off(engine: Engine) -> None:
    invoice(engine)
    land(engine, [record("Success", PAID), record("Refunded", BACK)])
    publish(engine, "2026-03", "2026-03", as_of=D(2026, 3, 4))
    assert reversals(engine) == []
    publish(engine, "2026-03", "2026-03", as_of=D(2026, 3, 5))
    assert len(reversals(engine)) == 1


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["Success", "Failed", "Refunded", "Chargeback", "ChargebackReversed"]),
        st.sampled_from(["r1", "r2"]),
        st.integers(1, 28),
        st.sampled_from(["100.00", "40.00"]),
    ),
    max_size=10,
)


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(events=EVENTS, seed=st.integers(0, 99))
def test_the_order_of_delivery_does_not_matter(
    module_world: World, events: list[tuple[str, str, int, str]], seed: int
) -> None:
    engine = module_world.engine
    if not rows(engine, "SELECT FROM prepaid.invoices"):
        invoice(engine)
    records = [
        record(s, f"2026-03-{day:02}T10:00:00Z", amount, ref) for s, ref, day, amount in events
    ]
    shuffled = random.Random(seed).sample(records * 2, len(records) * 2)
    found = []
    for delivery in (records, shuffled):
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM prepaid.transactions")
        land(engine, delivery)
        publish(engine, "2026-03", "2026-03")
        found.append(reversals(engine))
    assert found[0] == found[1]


def test_few_reversals_are_found_without_reading_all_records(engine: Engine) -> None:
    """20,000 payments and three that were taken back: no scan of the table."""
    invoice(engine)
    many = [record("Success", PAID, ref=f"p{n}") for n in range(20_000)]
    land(engine, [*many, *(record("Chargeback", BACK, ref=f"p{n}") for n in range(3))])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE prepaid.transactions")
    publish(engine, "2026-03", "2026-03")
    assert reversals(engine) == [("2026-03", "USD", "Chargeback", 3, "300.00")]
    returned = queries.statement("steps/12_monthly_recurring_revenue/2_mrr", "money_returned")
    plan = rows(engine, f"EXPLAIN {returned.clause.text}", as_of=D(2026, 3, 31))
    steps = [line.strip() for (line,) in plan]
    assert [step for step in steps if "Seq Scan on transactions" in step] == []
    assert any("transactions_taken_back" in step for step in steps)


def test_credit_notes_of_the_month(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 2, 1), customer=n) for n in range(4)])
    given = [
        ("2026-02-28", "10.00", "1.90"),
        ("2026-03-01", "20.00", "3.80"),
        ("2026-03-31", "5.05", "0"),
        ("2026-04-01", "1.00", "0.19"),
    ]
    for number, amounts in enumerate(given):
        credit_note(engine, number, *amounts)
    publish(engine, "2026-03", "2026-03", as_of=D(2026, 3, 30))
    issued = "SELECT credit_notes, net, tax, total FROM revenue.credit_notes_issued"
    assert rows(engine, issued) == [(1, Decimal("20.00"), Decimal("3.80"), Decimal("23.80"))]
    publish(engine, "2026-03", "2026-03")
    assert rows(engine, issued) == [(2, Decimal("25.05"), Decimal("3.80"), Decimal("28.85"))]
    with engine.connect() as connection:
        (figures,) = collect(connection, D(2026, 3, 1), D(2026, 3, 1))[D(2026, 3, 1)]
    assert figures["credit_notes"] == {"count": 2, "net": "25.05", "tax": "3.80", "total": "28.85"}


def test_a_refund_for_a_credit_note_needs_no_payment_record(engine: Engine) -> None:
    """Of imported history: what was paid then is not among our records."""
    test_credit_notes_of_the_month(engine)
    land(engine, [record("Refunded", BACK, "23.80", "own-ref", invoice_number="CN-1")])
    publish(engine, "2026-03", "2026-03")
    assert reversals(engine) == [("2026-03", "USD", "Refunded", 1, "23.80")]


def test_a_month_with_nothing_but_reversals_is_reported(engine: Engine) -> None:
    invoice(engine)
    land(
        engine,
        [
            record("Success", PAID),
            record("Chargeback", "2026-06-05T10:00:00Z", "12.30"),
            record("ChargebackReversed", "2026-06-09T10:00:00Z", "2.30"),
        ],
    )
    publish(engine, "2026-06", "2026-06")
    june = D(2026, 6, 1)
    with engine.connect() as connection:
        (figures,) = collect(connection, june, june)[june]
    assert (figures["currency"], figures["mrr"]) == ("USD", "0.00")
    assert (figures["reversals"]["records"], figures["reversals"]["amount"]) == (2, "10.00")
    assert [k["amount"] for k in figures["reversals"]["kinds"]] == [
        "0.00",
        "12.30",
        "-2.30",
        "0.00",
    ]
