"""docs/payments-import.md: its tables say what the code does."""

import re
from pathlib import Path

from prepaid_pipeline.providers import stripe_balance, stripe_payments

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
