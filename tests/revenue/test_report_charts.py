"""The drawings: where things stand, what they say, how they are told apart without colour."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prepaid_pipeline.language import catalogue
from prepaid_pipeline.revenue.report.page import charts, palette
from prepaid_pipeline.revenue.report.page.charts import Chart
from tests.revenue.documents import full

SAY = catalogue.of("en_GB", Path("/nowhere"))
SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(chart.svg)


def texts(chart: Chart) -> list[str]:
    return [element.text or "" for element in drawn(chart).iter(f"{SVG}text")]


def bars(chart: Chart, fill: str) -> list[tuple[float, float, float, float]]:
    """x, y, width and height of each bar of a colour, from its path."""
    found = []
    for path in drawn(chart).iter(f"{SVG}path"):
        shape = re.fullmatch(
            r"M(-?[\d.]+),(-?[\d.]+)h(-?[\d.]+)v(-?[\d.]+)h-?[\d.]+Z", path.get("d", "")
        )
        if shape and fill in path.get("fill", ""):
            x, y, width, height = map(float, shape.groups())
            found.append((x, y, width, height))
    return found


def course() -> Any:
    return full()["course"][0]


def test_columns_are_as_high_as_their_numbers() -> None:
    chart = charts.course_of_plans(course(), "title", "alternative", SAY)
    new, renewed = bars(chart, palette.BLUE), bars(chart, "url(#course_of_plans-USD-")
    assert (len(new), len(renewed)) == (13, 13)
    per_plan = renewed[0][3] / 161
    for month, top, below in zip(course()["months"], new, renewed, strict=True):
        assert top[3] == pytest.approx(month["new"] * per_plan, abs=0.01)
        assert below[3] == pytest.approx(month["renewals"] * per_plan, abs=0.01)
        assert top[0] == below[0]
        assert top[1] + top[3] == pytest.approx(below[1]), "new stands on renewals"


def test_labels() -> None:
    found = texts(charts.course_of_plans(course(), "title", "alternative", SAY))
    assert found[:4] == ["0", "100", "200", "300"]
    assert {"Oct", "Jan", "2025", "2026", "34", "new", "212", "renewals"} <= set(found)
    assert found.count("2026") == 1
    german = catalogue.of("de_DE", Path("/nowhere"))
    assert {"Okt", "Mär", "neu"} <= set(texts(charts.course_of_plans(course(), "t", "a", german)))


def test_the_bridge_goes_from_start_to_end() -> None:
    figures = full()["currencies"][0]
    chart = charts.bridge(figures, "title", "alternative", SAY)
    gains, losses = bars(chart, palette.BLUE), bars(chart, "url(#bridge-USD-d55e00)")
    assert (len(gains), len(losses)) == (3, 2)
    per_unit = gains[0][2] / 702.5
    for bar, amount in zip([*gains, *losses], (702.5, 171, 148.2, 93.7, 615), strict=True):
        assert bar[2] == pytest.approx(amount * per_unit, abs=0.01)
    assert gains[1][0] == pytest.approx(gains[0][0] + gains[0][2])
    assert losses[0][0] + losses[0][2] == pytest.approx(gains[2][0] + gains[2][2])
    assert texts(chart)[-7:] == [
        "11,589.00",
        "+702.50",
        "+171.00",
        "+148.20",
        "\u221293.70",
        "\u2212615.00",
        "11,902.00",
    ]


def test_what_is_drawn_in_grey_can_be_told_apart() -> None:
    """Renewals and losses have lines across, new plans and gains have none."""
    plans = charts.course_of_plans(course(), "title", "alternative", SAY).svg
    assert len(re.findall("<pattern ", plans)) == 1
    assert 'id="course_of_plans-USD-c9d3dc"' in plans
    assert palette.PALE not in plans.replace(
        f'<rect width="5" height="5" fill="{palette.PALE}"/>', ""
    )


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_colours_stand_out() -> None:
    """WCAG 2.2: 4.5 for text, 3 for what is drawn; new against renewals by lightness alone."""
    assert min(contrast(colour, "#ffffff") for colour in (palette.INK, palette.SOFT)) >= 4.5
    assert min(contrast(colour, "#ffffff") for colour in (palette.BLUE, palette.VERMILION)) >= 3
    assert contrast(palette.BLUE, palette.PALE) >= 3


@pytest.mark.parametrize(
    "months",
    [
        pytest.param([("2026-09", 0, 0, "0"), ("2026-10", 0, 0, "0")], id="nothing"),
        pytest.param(
            [("2026-09", 1, 0, "0.333"), ("2026-10", 0, 1, "0.333")], id="next to nothing"
        ),
        pytest.param([("2026-09", 10**6, 10**7, "1E+12"), ("2026-10", 1, 1, "5")], id="very much"),
    ],
)
def test_odd_courses(months: list[tuple[str, int, int, str]]) -> None:
    series = {
        "currency": "KWD",
        "months": [
            {"month": m, "new": n, "renewals": r, "mrr": f"{Decimal(mrr):f}"}
            for m, n, r, mrr in months
        ],
    }
    for draw in (charts.course_of_plans, charts.course_of_mrr):
        chart = draw(series, "title", "alternative", SAY)
        assert "NaN" not in chart.svg
        assert "Infinity" not in chart.svg


def test_a_month_in_which_nothing_moved() -> None:
    figures = full()["currencies"][0]
    still = [{**m, "amount": "0.00"} for m in figures["movements"]]
    chart = charts.bridge({**figures, "movements": still, "mrr": "11589.00"}, "t", "a", SAY)
    assert "NaN" not in chart.svg
    assert texts(chart).count("11,589.00") == 2


@settings(max_examples=60, deadline=None)
@given(st.decimals(0, 10**13, places=2))
def test_the_scale_is_round_and_reaches_the_top(top: Decimal) -> None:
    lines = [line["value"] for line in charts._scale(top, SAY)["lines"]]
    assert lines[0] == 0
    assert lines[-1] >= float(top)
    assert 2 <= len(lines) <= 4
    assert len(set(charts._scale(top, SAY)["lines"][n]["label"] for n in range(len(lines)))) == len(
        lines
    )


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "0"),
        ("9120", "9,120"),
        ("11902.00", "11.9 k"),
        ("600000", "600 k"),
        ("1244000", "1.24 M"),
        ("75400", "75.4 k"),
        ("0.333", "0.333"),
    ],
)
def test_short_amounts(amount: str, shown: str) -> None:
    assert charts.short(Decimal(amount), SAY) == shown
