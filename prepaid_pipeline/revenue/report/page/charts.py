"""The charts of a report: Altair describes them, vl-convert draws them as SVG without a browser.

A chart is compiled once per process and gets each month's data after that. Every text in it is made
here and drawn as a mark: the drawing knows no locale, and labels of axes cost ten times as much.
Colours are Okabe and Ito's, told apart by people who see few colours and in print by hatching.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cache
from typing import Any

from prepaid_pipeline.language.catalogue import Language
from prepaid_pipeline.revenue.report.page.palette import PALE, VERMILION

_HATCHES = {PALE: "#8b99a6", VERMILION: "#ffffff"}
_FONT = "sans-serif"
_UNITS = ((Decimal(10) ** 6, "unit.million"), (Decimal(10) ** 3, "unit.thousand"))


@dataclass(frozen=True)
class Chart:
    """A drawing with its text alternative; ``svg`` is a complete element."""

    key: str
    title: str
    alternative: str
    svg: str
    width: int
    height: int


def course_of_plans(
    series: Mapping[str, Any], title: str, alternative: str, say: Language
) -> Chart:
    """New plans on top of renewals, month by month."""
    points, months = [], series["months"]
    for place, point in enumerate(months):
        for kind, low, high in (
            ("renewal", 0, point["renewals"]),
            ("new", point["renewals"], point["renewals"] + point["new"]),
        ):
            points.append({"place": place, "kind": kind, "low": low, "high": high})
    last = months[-1]
    top = max(p["high"] for p in points)
    marks = _names(
        [
            (last["renewals"] / 2, say.count(last["renewals"]), say("kind.renewal")),
            (last["renewals"] + last["new"] / 2, say.count(last["new"]), say("kind.new")),
        ],
        float(top),
    )
    data = {"points": points, "names": marks, **_scale(Decimal(top), say), **_months(months, say)}
    return _draw("course_of_plans", series["currency"], data, title, alternative)


def course_of_mrr(series: Mapping[str, Any], title: str, alternative: str, say: Language) -> Chart:
    """MRR at the end of each month."""
    months = series["months"]
    points = [{"place": i, "high": float(p["mrr"])} for i, p in enumerate(months)]
    last = Decimal(months[-1]["mrr"])
    top = max(Decimal(p["mrr"]) for p in months)
    data = {
        "points": points,
        "names": _names([(float(last), short(last, say), series["currency"])], float(top)),
        **_scale(top, say),
        **_months(months, say),
    }
    return _draw("course_of_mrr", series["currency"], data, title, alternative)


def bridge(figures: Mapping[str, Any], title: str, alternative: str, say: Language) -> Chart:
    """From the MRR of a month ago to this one's: each movement starts where the last one ended."""
    level = Decimal(figures["opening_mrr"])
    rows = [("start", level, level, say.money(level))]
    for movement in figures["movements"]:
        after = level + Decimal(movement["amount"])
        rows.append((movement["movement"], level, after, say.signed(movement["amount"])))
        level = after
    rows.append(("end", level, level, say.money(level)))
    low, high = (f(v for _, a, b, _ in rows for v in (a, b)) for f in (min, max))
    room = (high - low) or Decimal(1)
    points = [
        {
            "place": place,
            "low": float((min(a, b) - low) / room),
            "high": float((max(a, b) - low) / room),
            "after": float((b - low) / room),
            "way": "level" if key in ("start", "end") else "gain" if b >= a else "loss",
            "name": say(f"movement.{key}") if say.knows(f"movement.{key}") else key,
            "amount": amount,
        }
        for place, (key, a, b, amount) in enumerate(rows)
    ]
    return _draw("bridge", figures["currency"], {"points": points}, title, alternative)


def warm_up() -> None:
    """Do once what the first chart would wait for."""
    from prepaid_pipeline.revenue.report.page import chart_specs  # noqa: PLC0415  (half a second)

    for key in chart_specs.SPECS:
        _compiled(key)


def short(amount: Decimal, say: Language, like: Decimal | None = None) -> str:
    """An amount as a chart has room for it: ``455.7 k``, ``1.24 M``; in the unit of ``like``."""
    biggest = abs(amount if like is None else like)
    for size, key in _UNITS:
        if biggest >= size * (1 if key == "unit.million" else 10):
            places = Decimal("0.01" if abs(amount) < 10 * size else "0.1")
            if not amount:
                break
            # 600 k, not 600.0 k; 1.5 M, not 1.50 M.
            shown = (amount / size).quantize(places).normalize()
            return say(key, n=say.money(f"{shown:f}"))
    return say.money(amount)


def _scale(top: Decimal, say: Language) -> dict[str, list[dict[str, Any]]]:
    """Lines at three or four round numbers from 0, the highest at or above ``top``."""
    step = _step(max(top, Decimal(1)) / 3)
    count = max(1, int((top / step).to_integral_value(ROUND_CEILING)))
    lines = [Decimal(f"{(step * n).normalize():f}") for n in range(count + 1)]
    return {"lines": [{"value": float(n), "label": short(n, say, lines[-1])} for n in lines]}


def _step(size: Decimal) -> Decimal:
    """The next of 1, 2, 2.5, 5, 10, 20, 25 … that is not less than ``size``."""
    power = Decimal(1).scaleb(size.adjusted())
    return next(step * power for step in (1, 2, Decimal("2.5"), 5, 10) if step * power >= size)


def _months(months: Sequence[Mapping[str, Any]], say: Language) -> dict[str, list[dict[str, Any]]]:
    """A label per month, and the year under the first of each."""
    labels, year = list[dict[str, Any]](), ""
    for place, point in enumerate(months):
        of_year, year_before = point["month"][:4], year
        year = of_year
        labels.append(
            {
                "place": place,
                "month": say.short_month(point["month"])[:3],
                "year": of_year if of_year != year_before else "",
            }
        )
    return {"months": labels}


def _names(values: Sequence[tuple[float, str, str]], top: float) -> list[dict[str, Any]]:
    """Labels of two lines next to the last month, from the lowest up, without overlapping."""
    gap, placed = max(top, 1.0) * 0.24, list[dict[str, Any]]()
    for value, amount, label in values:
        at = max(value, placed[-1]["value"] + gap) if placed else value
        placed.append({"value": at, "amount": amount, "label": label})
    return placed


def _draw(key: str, currency: str, data: Mapping[str, Any], title: str, alternative: str) -> Chart:
    import vl_convert

    spec = json.loads(_compiled(key))
    for entry in spec["data"]:
        if entry["name"] in data:
            entry["values"] = data[entry["name"]]
    drawn = vl_convert.vega_to_svg(spec)
    size = re.search(r'width="([\d.]+)" height="([\d.]+)"', drawn)
    assert size is not None
    hatched = _hatched(drawn, f"{key}-{currency}")
    return Chart(key, title, alternative, hatched, round(float(size[1])), round(float(size[2])))


def _hatched(svg: str, prefix: str) -> str:
    """Areas of some colours with lines across, so that they differ without colour too."""
    patterns = []
    for colour, line in _HATCHES.items():
        name = f"{prefix}-{colour[1:]}"
        if f'fill="{colour}"' not in svg:
            continue
        svg = svg.replace(f'fill="{colour}"', f'fill="url(#{name})"')
        patterns.append(
            f'<pattern id="{name}" width="5" height="5" patternUnits="userSpaceOnUse"'
            f' patternTransform="rotate(45)"><rect width="5" height="5" fill="{colour}"/>'
            f'<rect width="1.5" height="5" fill="{line}"/></pattern>'
        )
    return svg.replace("<defs/>", "").replace(">", f"><defs>{''.join(patterns)}</defs>", 1)


@cache
def _compiled(key: str) -> str:
    """A chart as Vega takes it, without data: Altair's description, compiled by Vega-Lite."""
    import vl_convert

    from prepaid_pipeline.revenue.report.page import chart_specs  # noqa: PLC0415  (half a second)

    return json.dumps(vl_convert.vegalite_to_vega(chart_specs.SPECS[key]()))
