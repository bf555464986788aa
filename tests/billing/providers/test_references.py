"""An invoice number in a text: found when it is the only one, never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepaid_pipeline.billing.providers.references import found_in, only_one

NUMBER = st.builds(
    lambda series, year, number: f"{series}-{year}-{number:06}",
    st.sampled_from(["INV", "CN"]),
    st.integers(1000, 9999),
    st.integers(1, 9_999_999),
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("INV-2026-000017", "INV-2026-000017"),
        ("Renewal inv-2026-000017, thank you", "INV-2026-000017"),
        ("RENEWAL I NV-20\n26-000 017", "INV-2026-000017"),
        ("INV-2026-000017 03.11.2026", "INV-2026-000017"),
        ("INV-2026-000017/INV-2026-000017", "INV-2026-000017"),
        ("INV-2026-1234567", "INV-2026-1234567"),
        ("Refund CN-2026-000003", "CN-2026-000003"),
        ("INV-2026-000017 INV-2026-000018", None),
        ("Refund CN-2026-000003 for INV-2026-000017", None),
        # Seven digits never start with 0; six that do not may be seven that the bank broke.
        ("INV-2026-0000175", None),
        ("INV-2026-123456 7", None),
        ("INV-2026-00017", None),
        ("XINV-2026-000017", None),
        ("2026-000017", None),
        ("INV 2026 000017", None),
        ("", None),
    ],
)
def test_found(text: str, number: str | None) -> None:
    assert only_one([text]) == number


def test_the_first_text_with_a_number_counts() -> None:
    assert only_one([None, "thanks", "INV-2026-000001", "INV-2026-000002"]) == "INV-2026-000001"
    assert only_one(["INV-2026-000001 INV-2026-000002", "INV-2026-000003"]) is None
    assert only_one([]) is None


@given(NUMBER, st.data())
def test_whatever_a_bank_does_to_blanks_and_case(number: str, data: st.DataObject) -> None:
    def broken(sign: str) -> str:
        blank = data.draw(st.sampled_from(["", "", "", " ", "\n", "  "]))
        return blank + (sign.lower() if data.draw(st.booleans()) else sign)

    text = "".join(broken(sign) for sign in number)
    found = found_in(text)
    # A number of seven digits whose last one was broken off is not taken for a shorter one.
    assert only_one([text]) in (number, None)
    assert found == {number} or number[9:][0] != "0"


@given(st.text(max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    for number in found_in(text):
        assert number.isascii()
