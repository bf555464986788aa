"""prepaid payments import."""

from pathlib import Path

from sqlalchemy import Engine

from tests.billing.providers.deliveries import FILES, landed, write
from tests.cli.conftest import Prepaid, prepaid, typed  # noqa: F401  (fixtures)


def test_what_it_prints(prepaid: Prepaid, engine: Engine) -> None:  # noqa: F811
    outcome = prepaid("payments", "import", FILES / "balance_itemized.csv")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "balance_itemized.csv: imported, 12 rows read, 10 records added, 0 already known",
        "  not a customer's payment, skipped: 1 fee, 1 payout",
        "  unknown, kept as the provider's own status: 1 refund_failure",
    ]
    assert len(landed(engine)) == 10


def test_json(prepaid: Prepaid) -> None:  # noqa: F811
    prepaid("payments", "import", FILES / "payments.csv")
    outcome = prepaid("payments", "import", FILES / "payments.csv", "--json", "--format", "stripe")
    assert outcome.json() == [
        {
            "file": "payments.csv",
            "format": "stripe",
            "status": "unchanged",
            "rows": 9,
            "landed": 0,
            "known": 12,
            "skipped": {"test mode": 1},
            "unknown": {},
            "errors": [],
        }
    ]


def test_a_refused_file_makes_it_fail_and_the_others_land(
    prepaid: Prepaid,  # noqa: F811
    engine: Engine,
    tmp_path: Path,
) -> None:
    bad = write(tmp_path, "bad.csv", "a,b\n1,2\n")
    outcome = prepaid("payments", "import", bad, FILES / "payments.csv", "--provider", "shop")
    assert outcome.code == 1
    first, last = outcome.err.splitlines()
    assert first.startswith("bad.csv:1:-: found the header 'a,b', expected Stripe's balance trans")
    assert last == "prepaid: nothing was imported from bad.csv; see what is listed"
    assert {row[0] for row in landed(engine, "provider")} == {"shop"}


def test_wrong_usage(prepaid: Prepaid, tmp_path: Path) -> None:  # noqa: F811
    assert prepaid("payments", "import").code == 2
    assert prepaid("payments", "import", tmp_path / "nothing.csv").code == 2
    assert prepaid("payments", "import", tmp_path).code == 2
    file = FILES / "payments.csv"
    assert prepaid("payments", "import", file, "--format", "mt940").code == 2
    assert prepaid("payments", "import", file, "--provider", " ").code == 2
