"""Entries of bank statements that share a reference are different payments."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, Engine, text

from prepaid_pipeline.database import connections
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from tests.billing.providers.deliveries import FILES, landed, take, write
from tests.billing.providers.statements import entry, statement
from tests.budget import examples
from tests.conftest import filled, fresh_database
from tests.importer.folders import take as take_folder
from tests.world import World, context

NO_NUMBER, NUMBERED = FILES / "same_reference.xml", FILES / "same_reference_numbered.xml"
HEADER = "provider,provider_ref,invoice_number,amount,currency,status,occurred_at"
BACK = "<RvslInd>true</RvslInd>"


def paid_by(name: str, ref: str = "R1", **fields: str) -> str:
    party = f"<TxDtls><RltdPties><Dbtr><Nm>{name}</Nm></Dbtr></RltdPties>"
    return entry(ref, **fields).replace("<TxDtls>", party)


def deliver(engine: Engine, folder: Path, *entries: str, **more: str) -> int:
    """How many records a statement of these entries adds."""
    report = take(engine, write(folder, "statement.xml", statement(*entries, **more)))
    assert report.errors == []
    assert report.landed + report.known == len(entries)
    return report.landed


def test_three_credits_of_one_reference(engine: Engine) -> None:
    report = take(engine, NO_NUMBER)
    assert (report.landed, report.known) == (3, 0)
    assert take(engine, NO_NUMBER).landed == 0
    refs = [ref for ref, _, _ in landed(engine)]
    assert refs[0] == "2026110400009"
    assert all(re.fullmatch(r"2026110400009/[0-9a-f]{12}", ref) for ref in refs[1:])
    assert len(set(refs)) == 3


def test_counts_of_identical_entries(engine: Engine, tmp_path: Path) -> None:
    one = entry(text="Monthly plan")
    assert [deliver(engine, tmp_path, *[one] * n) for n in (3, 3, 2, 4, 1, 4)] == [3, 0, 0, 1, 0, 0]
    assert len({ref for ref, _, _ in landed(engine)}) == 4


def test_statements_that_overlap_by_some_of_them(engine: Engine, tmp_path: Path) -> None:
    one, two, three = (paid_by(name) for name in ("One", "Two", "Three"))
    assert deliver(engine, tmp_path, one, two) == 2
    assert deliver(engine, tmp_path, three, two) == 1
    assert deliver(engine, tmp_path, three, one, two) == 0


def test_a_statement_twice_in_one_file(engine: Engine, tmp_path: Path) -> None:
    pair = statement(entry(), entry())
    inner = pair[pair.index("<Stmt>") : pair.index("</Stmt>") + len("</Stmt>")]
    report = take(engine, write(tmp_path, "a.xml", pair.replace(inner, inner + inner)))
    assert (report.landed, report.known) == (2, 2)


def test_a_counter_that_starts_anew_each_day(engine: Engine, tmp_path: Path) -> None:
    days = [entry("0001", day=f"2026-11-0{n}", text="Monthly plan") for n in (3, 4, 5)]
    assert [deliver(engine, tmp_path, day) for day in days] == [1, 1, 1]
    assert deliver(engine, tmp_path, *days) == 0
    assert len({ref for ref, _, _ in landed(engine)}) == 3


def test_accounts_are_told_apart(engine: Engine, tmp_path: Path) -> None:
    assert deliver(engine, tmp_path, entry()) == 1
    assert deliver(engine, tmp_path, entry(), account="DE03") == 1


def test_the_time_zone_makes_no_other_payment(engine: Engine, tmp_path: Path) -> None:
    path = write(tmp_path, "a.xml", statement(entry()))
    assert take(engine, path).landed == 1
    assert take(engine, path, timezone=ZoneInfo("Asia/Tokyo")).landed == 0


def csv(*numbers: str, hour: str = "00:00", ref: str = "R1", status: str = "Success") -> str:
    rows = [f"DE02,{ref},{number},10.00,EUR,{status},2026-11-03T{hour}:00Z" for number in numbers]
    return "\n".join([HEADER, *rows]) + "\n"


NUMBERS = [f"INV-2026-00000{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("hour", ["00:00", "14:30"])
@pytest.mark.parametrize("numbers", [["", "", ""], NUMBERS])
def test_a_csv_after_the_statement_adds_nothing(
    engine: Engine, tmp_path: Path, numbers: list[str], hour: str
) -> None:
    entries = [paid_by(f"Payer {n}", text=number) for n, number in enumerate(numbers)]
    assert deliver(engine, tmp_path, *entries) == 3
    found = take_folder(engine, tmp_path, {"transactions": csv(*numbers, hour=hour)})
    assert found["transactions"].added == 0


@pytest.mark.parametrize("hour", ["00:00", "14:30"])
@pytest.mark.parametrize("numbers", [["", "", ""], NUMBERS])
def test_a_statement_after_the_csv_adds_what_is_missing(
    engine: Engine, tmp_path: Path, numbers: list[str], hour: str
) -> None:
    """Of a file whose references are unique three identical lines are one record."""
    found = take_folder(engine, tmp_path, {"transactions": csv(*numbers, hour=hour)})
    entries = [paid_by(f"Payer {n}", text=number) for n, number in enumerate(numbers)]
    assert found["transactions"].added + deliver(engine, tmp_path, *entries) == 3
    assert deliver(engine, tmp_path, *entries) == 0
    assert len({ref for ref, _, _ in landed(engine)}) == 3


def test_announced_and_booked_is_one_payment_beside_others(engine: Engine, tmp_path: Path) -> None:
    announced = entry(status="PDNG", text=NUMBERS[0])
    booked = entry(day="2026-11-04", text=NUMBERS[0])
    other = entry(day="2026-11-04", text=NUMBERS[1])
    for order in ([announced, other, booked], [other, booked, announced]):
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM prepaid.transactions"))
        for piece in order:
            assert deliver(engine, tmp_path, piece) == 1
        refs = dict(landed(engine, "concat(status, ' ', invoice_number), provider_ref"))
        assert refs[f"Success {NUMBERS[0]}"] != refs[f"Success {NUMBERS[1]}"]


def test_a_return_finds_its_payment_among_those_of_one_reference(
    engine: Engine, tmp_path: Path
) -> None:
    take(engine, NUMBERED)
    names = dict(landed(engine, "invoice_number, provider_ref"))
    back = entry(
        "R9", amount="11.90", direction="DBIT", text=NUMBERS[1], more=BACK, day="2026-11-20"
    )
    named = back.replace("<TxDtls>", "<TxDtls><Refs><EndToEndId>2026110300001</EndToEndId></Refs>")
    for again in (1, 0):
        assert deliver(engine, tmp_path, named, account="DE02120300000000202051") == again
    assert landed(engine)[3][:2] == (names[NUMBERS[1]], "Chargeback")


def test_a_return_that_could_be_of_several_keeps_to_itself(engine: Engine, tmp_path: Path) -> None:
    take(engine, NO_NUMBER)
    payments = {ref for ref, _, _ in landed(engine)}
    back = entry("2026110400009", amount="11.90", direction="DBIT", more=BACK, day="2026-11-20")
    for again in (1, 0):
        assert deliver(engine, tmp_path, back, account="DE02120300000000202051") == again
    assert landed(engine)[3][0] not in payments


def test_two_returns_that_say_the_same_are_two(engine: Engine, tmp_path: Path) -> None:
    """By their bank's references; both belong to the only payment of the invoice."""
    deliver(engine, tmp_path, entry("R1", text=NUMBERS[0]))
    back = [
        entry(ref, direction="DBIT", text=NUMBERS[0], more=BACK, day="2026-11-20")
        for ref in ("R8", "R9")
    ]
    assert [deliver(engine, tmp_path, *back) for _ in range(2)] == [2, 0]
    assert landed(engine)[1:] == [("R1", "Chargeback", "10.00")] * 2


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["R1", "R2", "NONREF"]),
        st.sampled_from(["One", "Two"]),
        st.sampled_from(["2026-11-03", "2026-11-04"]),
        st.sampled_from(["", *NUMBERS[:2]]),
    ),
    min_size=1,
    max_size=7,
)


@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ENTRIES, st.randoms())
def test_however_it_is_delivered_no_entry_is_lost(
    module_engine: Engine, tmp_path: Path, drawn: list[tuple[str, str, str, str]], random: Random
) -> None:
    """In parts of any size and order, with the whole at any place among them."""
    with module_engine.begin() as connection:
        connection.execute(text("DELETE FROM prepaid.transactions"))
    entries = [paid_by(payer, ref, day=day, text=number) for ref, payer, day, number in drawn]
    deliveries = [random.sample(entries, random.randint(0, len(entries))) for _ in range(3)]
    deliveries.insert(random.randint(0, 3), entries)
    for delivered in deliveries:
        random.shuffle(delivered)
        deliver(module_engine, tmp_path, *delivered)
    wanted = Counter((day, number or "None") for _, _, day, number in drawn)
    found = landed(module_engine, "occurred_at::date, coalesce(invoice_number, 'None')")
    assert Counter(found) == wanted
    # Each is a payment of its own.
    assert len({ref for ref, _, _ in landed(module_engine)}) == len(drawn)


def _euros(engine: Engine) -> None:
    world = World(engine)
    world.tax_rate("0.19", country="DE")
    plan = world.plan("10.00", currency="EUR")
    for _ in range(21):
        world.subscription(world.customer(country="DE", currency="EUR"), plan)
    world.open()


@pytest.fixture(scope="module")
def euros(cluster: URL) -> Iterator[str]:
    with filled(cluster, _euros) as name:
        yield name


class TestMatching:
    """With 21 open invoices over 11.90 EUR."""

    @pytest.fixture
    def engine(self, cluster: URL, euros: str) -> Iterator[Engine]:
        with fresh_database(cluster, euros) as url:
            engine = connections.engine_for(url)
            yield engine
            engine.dispose()

    def test_each_pays_its_invoice(self, world: World) -> None:
        take(world.engine, NUMBERED)
        assert world.match() == {"matched": 3, "parked": 0, "superseded": 0, "waiting": 0}
        paid = world.rows(
            "SELECT t.invoice_number = i.invoice_number FROM prepaid.transactions t"
            " JOIN prepaid.invoices i USING (invoice_id)"
        )
        assert paid == [(True,)] * 3

    def test_three_tasks_and_each_can_be_assigned(self, world: World) -> None:
        take(world.engine, NO_NUMBER)
        assert world.match()["parked"] == 3
        records = [
            record
            for (record,) in world.rows(
                "SELECT transaction_id FROM prepaid.tasks WHERE kind = 'payment_review'"
                " AND status = 'Open' ORDER BY 1"
            )
        ]
        assert len(records) == 3
        officer = world.officer()
        for record, number in zip(records, NUMBERS, strict=True):
            decisions.assign(world.engine, officer, record, number, "their bank told us")
            assert world.match()["matched"] == 1
        found = invariants.run(world.engine, context())
        assert [finding for check in found for finding in check.findings] == []

    @pytest.mark.parametrize("closed", [False, True])
    def test_what_landed_before_as_one_payment_is_told_apart(
        self, world: World, closed: bool
    ) -> None:
        """As an older release took the statement: as one payment, delivered with other contents."""
        for number in NUMBERS:
            world.record(
                number,
                "11.90",
                provider="DE02120300000000202051",
                provider_ref="2026110300001",
                currency="EUR",
                occurred_at="2026-11-03T00:00Z",
            )
        assert world.match()["parked"] == 2
        if closed:
            task = world.sql(
                "SELECT task_id FROM prepaid.tasks k JOIN prepaid.transactions t USING"
                " (transaction_id) WHERE t.invoice_number = :number",
                number=NUMBERS[2],
            )
            decisions.decide(world.engine, world.officer(), [task], "approve", "paid back")
        report = take(world.engine, NUMBERED)
        assert (report.landed, report.known) == (0, 3)
        assert world.match()["matched"] == (1 if closed else 2)
        assert take(world.engine, NUMBERED).landed == 0

    def test_an_exact_number_beats_what_looks_like_it(self, world: World) -> None:
        """INV-2026-000002 and INV-2026-000020 differ by two digits that are exchanged."""
        record = world.record(NUMBERS[1], "11.90", currency="EUR", customer_ref="C-9")
        slip = world.record("INV-2026-0000201", "11.90", currency="EUR")
        plain = world.record("inv 2026/000012", "11.90", currency="EUR")
        taken = world.record("INV-2026-000013", "11.90", currency="EUR")
        again = world.record("INV-2026-000013", "11.90", currency="EUR")
        swapped = world.record("INV-2026-000102", "11.90", currency="EUR")
        world.match()
        found = world.rows(
            "SELECT transaction_id, invoice_number, because FROM prepaid.payment_suggestions"
            " ORDER BY 1, 2"
        )
        assert found == [
            (record, NUMBERS[1], "same amount; the number: as the record has it"),
            (plain, "INV-2026-000012", "same amount; the number: written differently"),
            (swapped, "INV-2026-000012", "same amount; the number: two digits exchanged"),
        ]
        assert {slip, taken, again} - {row[0] for row in found} == {slip, taken, again}
