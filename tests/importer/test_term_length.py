"""ISO 8601 durations of terms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepaid_pipeline.importer import terms
from prepaid_pipeline.importer.terms import Term


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("P1M", Term(months=1)),
        ("P3M", Term(months=3)),
        ("P1Y", Term(months=12)),
        ("P2Y", Term(months=24)),
        ("P1Y6M", Term(months=18)),
        ("P7D", Term(days=7)),
        ("P1W", Term(days=7)),
        ("P2W", Term(days=14)),
        ("P30D", Term(days=30)),
    ],
)
def test_written_lengths(text: str, term: Term) -> None:
    assert terms.parse(text) == term


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "1M",
        "P0M",
        "P0D",
        "P1",
        "PM",
        "P1M3D",
        "P1W1D",
        "PT1H",
        "P1.5M",
        "P-1M",
        "p1m",
        "P1M ",
        "P1201M",
        "P101Y",
        "P36501D",
        "P99999999Y",
        "P\u0661M",
    ],
)
def test_what_is_no_term(text: str) -> None:
    with pytest.raises(ValueError, match="is not a term length: expected"):
        terms.parse(text)


lengths = st.one_of(
    st.builds(Term, months=st.integers(1, terms.MAX_MONTHS)),
    st.builds(Term, days=st.integers(1, terms.MAX_DAYS)),
)


@given(lengths)
def test_what_is_written_is_read_as_the_same(term: Term) -> None:
    assert terms.parse(terms.format(term)) == term


@given(st.text(alphabet="P0123456789YMWD", max_size=6))
def test_what_is_read_can_be_written(text: str) -> None:
    try:
        term = terms.parse(text)
    except ValueError:
        return
    assert (term.months > 0) != (term.days > 0)
    assert terms.parse(terms.format(term)) == term
