"""What all lists share: the filter in the query, one page of rows, and the way to the next."""

from dataclasses import dataclass
from typing import Any

from prepaid_pipeline.desk import amounts
from prepaid_pipeline.desk.rendering import address
from prepaid_pipeline.desk.visits import Visit

ROWS = 50


@dataclass(frozen=True)
class Filter:
    """What the query asks for; unknown words count as nothing asked."""

    show: str
    search: str | None
    currency: str | None
    after: int

    @classmethod
    def of(cls, visit: Visit, shows: tuple[str, ...] = ()) -> "Filter":
        """The filter of a request; ``shows`` are the words that ``show`` may have."""
        show, after = visit.asked("show"), visit.asked("after")
        return cls(
            show=show if show in shows else "",
            search=visit.asked("search")[:100] or None,
            currency=visit.asked("currency")[:3].upper() or None,
            after=int(after) if after.isascii() and after.isdigit() and len(after) < 19 else 0,
        )

    def params(self, visit: Visit) -> dict[str, Any]:
        """As parameters for a list's statement; one row more than is shown tells of more."""
        return {
            "show": self.show,
            "search": self.search,
            # The same for 85,68 and 85.68.
            "amounts": amounts.meant(self.search or ""),
            "spellings": amounts.spellings(self.search or ""),
            "currency": self.currency,
            "after": self.after,
            "rows": ROWS + 1,
            "today": visit.today,
            "person": visit.person.name,
        }

    def href(self, path: str, **changes: Any) -> str:
        """The address of this list with some of it changed; without ``after`` its first page."""
        asked = {"show": self.show, "currency": self.currency, "search": self.search}
        return address(path, **(asked | changes))


def cut(rows: list[Any], key: str) -> tuple[list[Any], int | None]:
    """The rows to show, and the key after which the next page starts if there is one."""
    if len(rows) <= ROWS:
        return rows, None
    return rows[:ROWS], int(getattr(rows[ROWS - 1], key))
