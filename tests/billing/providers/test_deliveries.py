"""However what a provider says is cut into files and put in order: the same records."""

from collections import Counter
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from tests.billing.providers.deliveries import landed, take, write
from tests.billing.providers.statements import entry, statement
from tests.budget import examples

COLUMNS = "provider, provider_ref, invoice_number, amount, currency, status, occurred_at"
HEADER = (
    "balance_transaction_id,created_utc,currency,gross,reporting_category,source_id,charge_id,"
    "payment_metadata[invoice_number]"
)
few = settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
AMOUNT = st.decimals("0.01", "9999.99", places=2)
ENTRY = st.builds(
    lambda amount, direction, status, number, back: {
        "amount": str(amount),
        "direction": direction,
        "status": status,
        "text": f"INV-2026-{number:06}",
        "more": "<RvslInd>true</RvslInd>" if back else "",
    },
    AMOUNT,
    st.sampled_from(["CRDT", "DBIT"]),
    st.sampled_from(["BOOK", "PDNG"]),
    st.integers(1, 9),
    st.booleans(),
)
MOVE = st.tuples(
    st.sampled_from(["charge", "refund", "dispute", "dispute_reversal", "payout"]),
    AMOUNT,
    st.integers(0, 3),
    st.integers(1, 3),
)


def fresh(engine: Engine) -> Engine:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM prepaid.transactions"))
    return engine


def taken(engine: Engine, folder: Path, *files: str) -> Counter[tuple[str, ...]]:
    fresh(engine)
    for number, file in enumerate(files):
        assert take(engine, write(folder, f"{number}.dat", file)).errors == []
    return Counter(landed(engine, COLUMNS))


@few
@given(st.lists(ENTRY, min_size=1, max_size=8), st.data())
def test_statements_that_overlap(
    module_engine: Engine, tmp_path: Path, given_entries: list[dict[str, str]], data: st.DataObject
) -> None:
    entries = [entry(f"R{n}", **fields) for n, fields in enumerate(given_entries)]
    cut = data.draw(st.integers(0, len(entries)))
    back = data.draw(st.integers(0, cut))
    whole = taken(module_engine, tmp_path, statement(*entries))
    parts = taken(module_engine, tmp_path, statement(*entries[:cut]), statement(*entries[back:]))
    # Which payment a return belongs to may be known in the whole statement only.
    assert without_returns(parts) == without_returns(whole)
    assert sum(parts.values()) == sum(whole.values())


def without_returns(records: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    return Counter({r: count for r, count in records.items() if r[5] != "Chargeback"})


@few
@given(st.lists(MOVE, min_size=1, max_size=10), st.randoms())
def test_every_balance_transaction_once_in_any_order(
    module_engine: Engine,
    tmp_path: Path,
    moves: list[tuple[str, Decimal, int, int]],
    random: Random,
) -> None:
    rows = [
        f"txn_{n},2026-10-01 08:00:0{second},usd,"
        f"{amount if kind in ('charge', 'dispute_reversal') else -amount},{kind},x_{n},"
        f"{'' if kind == 'payout' else f'ch_{charge}'},INV-2026-00000{charge}"
        for n, (kind, amount, second, charge) in enumerate(moves)
    ]
    whole = taken(module_engine, tmp_path, "\n".join([HEADER, *rows]))
    assert sum(whole.values()) == sum(kind != "payout" for kind, *_ in moves)
    total = sum((Decimal(record[3]) for record in whole.elements()), Decimal(0))
    assert total == sum((amount for kind, amount, *_ in moves if kind != "payout"), Decimal(0))
    random.shuffle(rows)
    file = "\n".join([HEADER, *rows])
    assert taken(module_engine, tmp_path, file, file) == whole


def test_a_file_lands_as_a_whole_or_not_at_all(engine: Engine, tmp_path: Path) -> None:
    """A fault in the database itself, behind the last row."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION pg_temp_fault() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN RAISE EXCEPTION ''no space''; END'"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER fault AFTER INSERT ON prepaid.transactions FOR EACH STATEMENT "
                "EXECUTE FUNCTION pg_temp_fault()"
            )
        )
    try:
        with pytest.raises(Exception, match="no space"):
            take(engine, write(tmp_path, "a.xml", statement(entry())))
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP FUNCTION pg_temp_fault CASCADE"))
    assert landed(engine) == []
    assert take(engine, tmp_path / "a.xml").landed == 1
