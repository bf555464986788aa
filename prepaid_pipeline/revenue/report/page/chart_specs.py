"""What the charts look like, in Altair. Imported when the first one is drawn: it takes a moment.

Data comes later, by name, as charts.py makes it: ``points``, ``lines`` (the scale), ``months``,
``names`` (labels next to the last month).
"""

from collections.abc import Callable
from typing import Any

import altair as alt

from prepaid_pipeline.revenue.report.page.palette import (
    BLUE,
    GRID,
    INK,
    PALE,
    SOFT,
    VERMILION,
    WIDTH,
)

Spec = dict[str, Any]
_PLOT_HEIGHT, _SCALE, _NAMES, _MONTHS = 150, 40, 66, 32
_BAND = 26
_TEXT: dict[str, Any] = {"font": "sans-serif", "fontSize": 11.5, "color": INK}
_QUIET: dict[str, Any] = {"font": "sans-serif", "fontSize": 11, "color": SOFT}


def _place(data: str = "place") -> alt.X:
    return alt.X(f"{data}:O", axis=None, scale=alt.Scale(paddingInner=0.3, paddingOuter=0.2))


def _value(field: str) -> alt.Y:
    return alt.Y(f"{field}:Q", axis=None, scale=alt.Scale(nice=False, zero=True))


def _course(*layers: alt.Chart) -> Spec:
    """Layers over 13 months with a scale at the left, months below, names at the right."""
    lines = alt.Chart(alt.NamedData("lines"))
    months = alt.Chart(alt.NamedData("months"))
    names = alt.Chart(alt.NamedData("names"))
    plot = WIDTH - _SCALE - _NAMES
    chart = alt.layer(
        lines.mark_rule(color=GRID, strokeWidth=1).encode(y=_value("value")),
        lines.mark_text(**_QUIET, align="right", dx=-6).encode(
            x=alt.value(0), y=_value("value"), text="label:N"
        ),
        *layers,
        months.mark_text(**_QUIET, dy=12).encode(
            x=_place(), y=alt.value(_PLOT_HEIGHT), text="month:N"
        ),
        months.mark_text(**_QUIET, dy=25).encode(
            x=_place(), y=alt.value(_PLOT_HEIGHT), text="year:N"
        ),
        names.mark_text(
            **_TEXT, align="left", dx=8, fontWeight="bold", baseline="bottom", dy=2
        ).encode(x=alt.value(plot), y=_value("value"), text="amount:N"),
        names.mark_text(**_QUIET, align="left", dx=8, baseline="top", dy=2).encode(
            x=alt.value(plot), y=_value("value"), text="label:N"
        ),
    )
    frame = {"left": _SCALE, "right": _NAMES, "top": 10, "bottom": _MONTHS}
    return _framed(chart.properties(width=plot, height=_PLOT_HEIGHT), frame)


def _framed(chart: Any, frame: dict[str, int]) -> Spec:
    # A fixed frame: measuring what would fit takes longer than drawing.
    sized = chart.properties(autosize=alt.AutoSizeParams(type="none"), padding=frame)
    quiet = sized.configure(aria=False, view=alt.ViewConfig(stroke=None))
    spec: Spec = quiet.to_dict(validate=False)
    return spec


def _course_of_plans() -> Spec:
    kinds = alt.Scale(domain=["renewal", "new"], range=[PALE, BLUE])
    bars = (
        alt.Chart(alt.NamedData("points"))
        .mark_bar()
        .encode(
            x=_place(),
            y=_value("low"),
            y2="high:Q",
            color=alt.Color("kind:N", scale=kinds, legend=None),
        )
    )
    return _course(bars)


def _course_of_mrr() -> Spec:
    points = alt.Chart(alt.NamedData("points"))
    at = {"x": _place(), "y": _value("high")}
    return _course(
        points.mark_area(color=BLUE, opacity=0.12).encode(**at),
        points.mark_line(color=BLUE, strokeWidth=2).encode(**at),
        points.mark_point(color=BLUE, filled=True, size=22, opacity=1).encode(**at),
    )


def _bridge() -> Spec:
    rows = alt.Chart(alt.NamedData("points"))
    left, right = 92, 96
    plot = WIDTH - left - right
    y = alt.Y("place:O", axis=None, scale=alt.Scale(paddingInner=0.35, paddingOuter=0.2))
    x = alt.X("low:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False))
    ways = alt.Scale(domain=["gain", "loss", "level"], range=[BLUE, VERMILION, INK])
    chart = alt.layer(
        rows.mark_text(**_TEXT, align="left").encode(x=alt.value(-left + 2), y=y, text="name:N"),
        rows.mark_bar().encode(
            x=x, x2="high:Q", y=y, color=alt.Color("way:N", scale=ways, legend=None)
        ),
        # Where each row ends and the next one starts.
        rows.mark_tick(color=INK, thickness=2, orient="vertical").encode(
            x=alt.X("after:Q", axis=None), y=y
        ),
        rows.mark_text(**_TEXT, align="right").encode(
            x=alt.value(plot + right - 2), y=y, text="amount:N"
        ),
    ).properties(width=plot, height=alt.Step(_BAND))
    return _framed(chart, {"left": left, "right": right, "top": 4, "bottom": 4})


SPECS: dict[str, Callable[[], Spec]] = {
    "course_of_plans": _course_of_plans,
    "course_of_mrr": _course_of_mrr,
    "bridge": _bridge,
}
