"""Write the figures of a run into the pages: ``python -m tests.faults.page FIGURES``.

docs/reliability.md gets the table, README.md one sentence, each between its two markers.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- figures: written by make reliability -->", "<!-- end of figures -->"
FAULTS = {
    1: "Processes and sessions killed",
    2: "PostgreSQL stopped again and again",
    3: "Mail servers that misbehave",
    4: "Many workers on the same plans",
    5: "Dagster's processes killed",
    6: "Clocks that are wrong, days that are odd",
    7: "Disk full",
    8: "Tampering with the audit log",
    9: "Migrations killed, backups restored",
    10: "Hostile files",
    11: "Transactions that people leave open",
}

Figure = dict[str, Any]


def read(figures: str) -> list[Figure]:
    """The lines of a run; of what was recorded twice the later, in the order of the faults."""
    lines = [json.loads(line) for line in figures.splitlines()]
    latest = {(line["fault"], line["test"], line["what"]): line for line in lines}
    return sorted(latest.values(), key=lambda line: (line["fault"], line["test"], line["what"]))


def table(figures: list[Figure]) -> str:
    """One row per figure, and one for each fault that has none."""
    rows = [
        "| fault | what was done | points | violations | seed | seconds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for number, name in FAULTS.items():
        found = [figure for figure in figures if figure["fault"] == number]
        for figure in found:
            seed = "" if figure["seed"] is None else figure["seed"]
            rows.append(
                f"| {number}. {name} | {figure['what']} | {figure['points']:,} |"
                f" {figure['violations']:,} | {seed} | {figure['seconds']:,} |"
            )
        if not found:
            rows.append(f"| {number}. {name} | not in this run | | | | |")
    return f"{summary(figures)}\n\n" + "\n".join(rows)


def summary(figures: list[Figure]) -> str:
    """The run in one sentence."""
    if not figures:
        return "No run has been recorded yet."
    points = sum(figure["points"] for figure in figures)
    violations = sum(figure["violations"] for figure in figures)
    faults = len({figure["fault"] for figure in figures})
    last = max(figures, key=lambda figure: figure["on"])
    return (
        f"Last run: {last['on']}, {last['machine']}. {points:,} points of {faults} of the"
        f" {len(FAULTS)} kinds of fault: {violations:,} violation{'' if violations == 1 else 's'}."
    )


def between(page: str, text: str) -> str:
    """The page with ``text`` between its markers. Raises ValueError where one is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main(path: str) -> None:
    figures = read(Path(path).read_text(encoding="utf-8"))
    for name, text in (("docs/reliability.md", table(figures)), ("README.md", summary(figures))):
        page = ROOT / name
        page.write_text(between(page.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
