"""docs/payments-import.md: its tables say what the code does."""

import re
from pathlib import Path

from prepaid_pipeline.billing.providers import camt053, camt_entry, stripe_balance, stripe_payments

TEXT = Path("docs/payments-import.md").read_text()


def table(first: str) -> dict[str, str]:
    """The two columns of the table whose first title this is."""
    body = TEXT.split(f"| {first} |")[1].split("\n\n")[0]
    return dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", body, re.MULTILINE))


def test_categories_of_the_balance() -> None:
    assert table("Category or type") == stripe_balance.MEANINGS


def test_statuses_of_payments() -> None:
    assert table("Status") == stripe_payments.MEANINGS


def test_disputes() -> None:
    meanings = {
        word: ", ".join(statuses) or "none" for word, statuses in stripe_payments.DISPUTES.items()
    }
    assert table("Dispute status") == meanings


def test_skipped_words_are_no_meanings() -> None:
    assert not stripe_balance.SKIPPED & set(stripe_balance.MEANINGS)
    named = TEXT.split("Skipped are")[1].split(".")[0]
    assert set(re.findall(r"`(\w+)`", named)) <= stripe_balance.SKIPPED


def test_entries_of_a_statement() -> None:
    described = {
        "credit, BOOK": camt053.meaning("BOOK", True, False, False),
        "credit, PDNG": camt053.meaning("PDNG", True, False, False),
        "debit that is a reversal or return, BOOK": camt053.meaning("BOOK", False, True, False),
        "debit that names one credit note, BOOK": camt053.meaning("BOOK", False, False, True),
    }
    skipped = {
        "credit that is a reversal or return": camt053.meaning("BOOK", True, True, False),
        "debit that is one of both and not booked": camt053.meaning("PDNG", False, True, True),
        "any other debit": camt053.meaning("BOOK", False, False, False),
        "INFO": camt053.meaning("INFO", True, False, False),
    }
    rows = table("Entry")
    assert {name: (status, "") for name, status in rows.items() if name in described} == described
    assert all(rows[name].startswith("skipped") for name in skipped)
    assert all(status == "" and kind for status, kind in skipped.values())
    assert rows.keys() - described.keys() - skipped.keys() == {"credit with another status"}
    assert camt053.meaning("FUTR", True, False, False) == ("FUTR", "")


def test_codes_of_returns() -> None:
    named = TEXT.split("transaction\ncodes ")[1].split(".")[0]
    assert set(named.split(", ")) == camt_entry.RETURNS
