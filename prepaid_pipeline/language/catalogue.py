"""How a report speaks: its texts from a catalogue per language, numbers and dates by CLDR (Babel).

A catalogue is ``texts/<language>.toml`` in this package or in the installation's home; the latter
adds a language, or other words, without touching code. What a catalogue lacks is said in English.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.load import Settings

_PACKAGED = Path(__file__).parent / "texts"
_FALLBACK = "en"
_MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"

Amount = str | int | Decimal


@dataclass(frozen=True)
class Language:
    """Texts and formats of one locale, such as ``de_DE``."""

    locale: Any
    texts: Mapping[str, Any]
    _cache: dict[tuple[str, int, str], str] = field(default_factory=dict, repr=False)

    @property
    def tag(self) -> str:
        """The language as HTML and PDF name it (BCP 47): ``de-DE``."""
        return str(self.locale).replace("_", "-")

    @property
    def is_right_to_left(self) -> bool:
        return bool(self.locale.text_direction == "rtl")

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key such as ``page.kicker``, with its places filled in.

        Raises KeyError for a key that no catalogue has.
        """
        text: str = self.texts[key]
        return text.format(**values)

    def knows(self, key: str) -> bool:
        """Whether there is such a text: words that data brings along may have none."""
        return key in self.texts

    def counted(self, key: str, number: int, **values: object) -> str:
        """The text of a key for a number, in the language's plural form (CLDR: one, few, other …).

        ``{n}`` is the number.
        """
        form = self.locale.plural_form(number)
        chosen = f"{key}.{form}" if f"{key}.{form}" in self.texts else f"{key}.other"
        return self(chosen, n=self.count(number), **values)

    def money(self, amount: Amount, exponent: int | None = None) -> str:
        """``455,661.00``: with ``exponent`` decimals, by default as many as the amount has."""
        number = Decimal(amount)
        if exponent is None:
            exponent = max(0, -int(number.as_tuple().exponent))
        return self._number("decimal", number, exponent)

    def signed(self, amount: Amount) -> str:
        """``money`` with a + before what is above 0; 0 has no sign."""
        return ("+" if Decimal(amount) > 0 else "") + self.money(amount)

    def count(self, number: int) -> str:
        """A whole number with its group separators: ``2,709``."""
        return self._number("decimal", Decimal(number), 0)

    def rate(self, rate: Amount | None, decimals: int = 1) -> str:
        """A part of 1 as a percentage, ``12.3%``; a dash when there is no whole."""
        return DASH if rate is None else self._number("percent", Decimal(rate), decimals)

    def growth(self, rate: Amount) -> str:
        """``rate`` with a + before what is above 0; what rounds to 0 has no sign."""
        if self.rate(abs(Decimal(rate))) == self.rate(0):
            return self.rate(0)
        return ("+" if Decimal(rate) > 0 else "") + self.rate(rate)

    def hours(self, hours: str | None) -> str:
        """A length of time, ``5.3 h`` or ``2.5 days``; a dash when there is none."""
        if hours is None:
            return DASH
        number = Decimal(hours)
        if number >= 48:
            return self("unit.days", n=self.money(number / 24, 1))
        return self("unit.hours", n=self.money(number))

    def day(self, value: str | date) -> str:
        """A date in full: ``8 November 2026``."""
        from babel.dates import format_date

        return str(format_date(_date(value), "long", self.locale))

    def moment(self, value: str | datetime) -> str:
        """A day with its time, in UTC."""
        from babel.dates import format_datetime

        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        return f"{format_datetime(at, 'long', locale=self.locale)}"

    def month(self, value: str | date) -> str:
        """``October 2026``, of ``2026-10`` or a day."""
        return _month("yMMMM", _date(value), str(self.locale))

    def short_month(self, value: str | date) -> str:
        """The abbreviated name of a month: ``Oct``."""
        return _month("LLL", _date(value), str(self.locale))

    def _number(self, kind: str, number: Decimal, decimals: int) -> str:
        key = (kind, decimals, str(number))
        if key not in self._cache:
            text = str(_pattern(str(self.locale), kind, decimals).apply(number, self.locale))
            self._cache[key] = text.replace("-", _MINUS)
        return self._cache[key]


def load(settings: Settings) -> Language:
    """The language of PREPAID_LOCALE. Raises SettingError for one that is not known or written."""
    return of(settings.locale, settings.home)


@lru_cache(maxsize=4)
def of(name: str, home: Path) -> Language:
    """The language of a locale in the installation of ``home``."""
    from babel import Locale, UnknownLocaleError

    added = home / "texts"

    try:
        locale = Locale.parse(name)
    except (UnknownLocaleError, ValueError, TypeError):
        raise SettingError(
            f"PREPAID_LOCALE={name!r}: expected a locale such as en_GB, en_US or de_DE"
        ) from None
    own = [_read(folder / f"{locale.language}.toml") for folder in (_PACKAGED, added)]
    if not any(own):
        raise SettingError(
            f"PREPAID_LOCALE={name!r}: there are no texts in this language. Copy"
            f" {_PACKAGED / 'en.toml'} to {added / f'{locale.language}.toml'} and translate it"
        )
    texts = _read(_PACKAGED / f"{_FALLBACK}.toml") | own[0] | own[1]
    return Language(locale, texts)


def _read(path: Path) -> dict[str, str]:
    """The texts of a file by their full keys; none if there is no such file."""
    try:
        with path.open("rb") as file:
            return dict(_flat(tomllib.load(file)))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error


def _flat(texts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in texts.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", str(value)))
    return found


@cache
def _pattern(locale: str, kind: str, decimals: int) -> Any:
    from babel import Locale
    from babel.numbers import parse_pattern

    known = Locale.parse(locale)
    formats = known.percent_formats if kind == "percent" else known.decimal_formats
    # 1,234.### and 12% become 1,234.00 and 12.0%: the decimals are ours, all else is the locale's.
    pattern = re.sub(r"\.[#0]+", "", formats[None].pattern)
    fraction = f".{'0' * decimals}" if decimals else ""
    return parse_pattern(re.sub(r"0(?=[^0]*$)", f"0{fraction}", pattern, count=1))


@lru_cache(maxsize=1000)
def _month(skeleton: str, value: date, locale: str) -> str:
    from babel.dates import format_date, format_skeleton

    if skeleton == "LLL":
        return str(format_date(value, "LLL", locale)).rstrip(".")
    return str(format_skeleton(skeleton, value, locale=locale))


def _date(value: str | date) -> date:
    if isinstance(value, date):
        return value
    return date.fromisoformat(value if len(value) > len("2026-01") else f"{value}-01")
