"""What a report is made of, whatever it is written as: pages, sections, tables, figures, terms.

Tables hold values and say of what kind each column is; how a value looks is the format's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from prepaid_pipeline.language.catalogue import DASH, Language
from prepaid_pipeline.revenue.report.page.charts import Chart

# money and signed have the decimals of the value; rate and share are parts of 1; hours are decimal.
Kind = Literal["text", "count", "money", "signed", "rate", "share", "hours", "day", "month"]
Role = Literal["", "start", "total"]


@dataclass(frozen=True)
class Word:
    """A value that the catalogue has a text for: ``Word("movement", "churn")``."""

    group: str
    code: str
    # What to say where no catalogue has a text.
    given: str = ""

    def text(self, say: Language) -> str:
        """Its text, or the code in plain words where no catalogue knows it.

        Countries are named by CLDR.
        """
        if self.group == "country" and self.code in say.locale.territories:
            return str(say.locale.territories[self.code])
        key = f"{self.group}.{self.code}"
        if say.knows(key):
            return say(key)
        words = self.given or self.code.replace("_", " ")
        return words[:1].upper() + words[1:]


Value = str | int | Decimal | Word | None


@dataclass(frozen=True)
class Column:
    """``name`` is that of CSV files and of the text ``column.<name>``."""

    name: str
    kind: Kind = "text"
    # Left out where there is little room.
    spare: bool = False

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers, which are aligned to the right."""
        return self.kind not in ("text", "day", "month")


@dataclass(frozen=True)
class Table:
    """One table of one currency, or (None) of the whole month. ``roles`` are those of the rows."""

    name: str
    columns: tuple[Column, ...]
    rows: Sequence[tuple[Value, ...]]
    currency: str | None = None
    roles: Sequence[Role] = ()
    note: str = ""
    # More columns than a telephone has room for: there, each row is a list.
    stacks: bool = False

    def title(self, say: Language) -> str:
        return say(f"table.{self.name}")

    def heading(self, column: Column, say: Language) -> str:
        """A column's heading, with the currency of its amounts."""
        text = say(f"column.{column.name}")
        money = column.kind in ("money", "signed") and self.currency
        return f"{text}, {self.currency}" if money else text

    def role(self, place: int) -> Role:
        """What a row is: an opening balance, a total, or one of the others."""
        return self.roles[place] if self.roles else ""

    def shown(self, place: int, say: Language) -> list[str]:
        """A row as people read it."""
        role = self.role(place)
        return [
            show(value, column.kind, say, role)
            for value, column in zip(self.rows[place], self.columns, strict=True)
        ]


def show(value: Value, kind: Kind, say: Language, role: Role = "") -> str:
    """A value as people read it; a dash for none."""
    if isinstance(value, Word):
        return value.text(say)
    if value is None:
        return "" if kind in ("text", "share") else DASH
    if isinstance(value, str) and kind == "text":
        return value
    match kind:
        case "count":
            return say.count(int(value))
        case "money":
            return say.money(value)
        case "signed":
            return say.money(value) if role else say.signed(value)
        case "rate" | "share":
            return say.rate(value)
        case "hours":
            return say.hours(str(value))
        case "day":
            return say.day(str(value))
        case "month":
            return say.month(str(value))
    return str(value)


@dataclass(frozen=True)
class Tile:
    """One of the figures at the head of the report."""

    label: str
    value: str
    unit: str = ""
    note: str = ""
    # The kind of plan that it counts, which has a colour.
    kind: str = ""


@dataclass(frozen=True)
class Split:
    """Parts of a whole as one bar: label, share of 1, kind."""

    alternative: str
    parts: tuple[tuple[str, Decimal, str], ...]


@dataclass(frozen=True)
class Headline:
    """What answers in ten seconds: a sentence, the large figures, the smaller ones."""

    sentence: str
    large: tuple[Tile, ...]
    small: tuple[Tile, ...] = ()
    split: Split | None = None


@dataclass(frozen=True)
class Figure:
    """A chart with the table behind it. ``open``: the table is shown at once, next to the chart."""

    chart: Chart
    table: Table
    open: bool = False


@dataclass(frozen=True)
class Folded:
    """A table that is there when somebody asks."""

    table: Table


@dataclass(frozen=True)
class Terms:
    """A list of definitions: pairs of term and text."""

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Paragraph:
    """A sentence or two. ``tone`` is good, bad or nothing."""

    text: str
    tone: Literal["", "good", "bad"] = ""


Block = Headline | Figure | Table | Folded | Terms | Paragraph


@dataclass(frozen=True)
class Section:
    """Blocks under a heading. Two ``halves`` in a row stand side by side where there is room."""

    name: str
    title: str
    blocks: tuple[Block, ...]
    halves: bool = False
    # Of one currency, under its own heading.
    currency: str | None = None


@dataclass(frozen=True)
class Page:
    """A month's report as blocks, before any format is chosen."""

    title: str
    kicker: str
    month: str
    badge: str
    is_closed: bool
    measured: str
    notice: str
    sections: tuple[Section, ...]
    footer: tuple[str, ...]
    file_stem: str
    say: Language = field(repr=False)
