"""A month in the reporting currency, at the month-end rates of ``revenue.exchange_rates``.

Two keys of a report's document: ``converted``, and ``converted_missing`` where a rate is not known;
a third, ``reporting_currency``, says into what. All are null where no reporting currency is set.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping

from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.revenue.report.content.rounding import parts, rounded, text
from prepaid_pipeline.revenue.rules import MOVEMENTS

KEYS = ("converted", "converted_missing", "reporting_currency")
_SQL = "steps/13_monthly_revenue_report/6_converted"
_EXCHANGE_RATES = "exchange_rates"


def collect(
    connection: Connection, first_month: date, last_month: date, currency: str | None
) -> dict[date, dict[str, Any]]:
    """The keys of every month in the range that has figures; nothing without a ``currency``.

    ``converted`` is ``{currency, rates: [{currency, rate, opening_rate}], opening_mrr, movements:
    [{movement, amount}], exchange_rates, mrr, new_net, renewal_net}``: amounts are texts with the
    currency's decimals, opening_mrr + movements + exchange_rates = mrr. rate is what one unit was
    worth at this month's end, opening_rate at the last one's (None: there was nothing to convert).
    Where a rate is missing converted is None; converted_missing says which: ``["EUR 2026-10"]``.

    Raises SettingError for a currency that the database does not know.
    """
    if currency is None:
        return {}
    params = {
        "first_month": first_month,
        "last_month": last_month,
        "reporting_currency": currency,
    }
    exponent = queries.statement(_SQL, "exponent").execute(connection, params).scalar()
    if exponent is None:
        raise SettingError(
            f"PREPAID_REPORTING_CURRENCY={currency!r}: expected an ISO 4217 currency code such as"
            " USD"
        )
    rates = defaultdict[date, list[RowMapping]](list)
    for row in queries.statement(_SQL, "rates").execute(connection, params).mappings():
        rates[row["month"]].append(row)
    amounts = defaultdict[date, dict[str, Decimal]](dict)
    for row in queries.statement(_SQL, "amounts").execute(connection, params).mappings():
        amounts[row["month"]][row["figure"]] = row["amount"]
    documents = {}
    for month, exact in amounts.items():
        missing = _missing(rates[month])
        documents[month] = {
            "converted": None if missing else _converted(currency, exponent, rates[month], exact),
            "converted_missing": missing or None,
            "reporting_currency": currency,
        }
    return documents


def _missing(rates: Sequence[RowMapping]) -> list[str]:
    missing = set()
    for row in rates:
        if row["rate"] is None:
            missing.add(f"{row['currency']} {row['month']:%Y-%m}")
        if row["needs_opening"] and row["opening_rate"] is None:
            before = row["month"] - timedelta(days=1)
            missing.add(f"{row['currency']} {before:%Y-%m}")
    return sorted(missing)


def _converted(
    currency: str, exponent: int, rates: Sequence[RowMapping], exact: Mapping[str, Decimal]
) -> dict[str, Any]:
    zero = Decimal(0)
    opening, closing, new, renewal = (
        rounded(exact.get(figure, zero), exponent)
        for figure in ("opening_mrr", "mrr", "new_net", "renewal_net")
    )
    lines = (*MOVEMENTS, _EXCHANGE_RATES)
    # A line that is exactly 0 stays 0: only what has a remainder takes part in the rounding.
    shown = parts([exact.get(line, zero) for line in lines], exponent, closing - opening)
    by_line = {line: text(amount) for line, amount in zip(lines, shown, strict=True)}
    return {
        "currency": currency,
        "rates": [
            {
                "currency": row["currency"],
                "rate": text(row["rate"]),
                "opening_rate": text(row["opening_rate"]) if row["needs_opening"] else None,
            }
            for row in rates
        ],
        "opening_mrr": text(opening),
        "movements": [
            {"movement": movement, "amount": by_line[movement]} for movement in MOVEMENTS
        ],
        _EXCHANGE_RATES: by_line[_EXCHANGE_RATES],
        "mrr": text(closing),
        "new_net": text(new),
        "renewal_net": text(renewal),
    }


def has_changed(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    """Whether a closed month has something new to say in the reporting currency. What was said
    stays when there is no reporting currency any more, or a rate is missing now.
    """
    now = after.get("converted")
    return now is not None and now != (before or {}).get("converted")


def describe(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """The change in a few words: ``in USD: MRR 100.00 -> 108.00 (+8.00)``."""
    was, now = (before or {}).get("converted"), after["converted"]
    if was is None or was["currency"] != now["currency"]:
        return f"now also in {now['currency']}: MRR {Decimal(now['mrr']):,f}"
    labels = {
        "mrr": "MRR",
        "opening_mrr": "MRR at the start",
        "exchange_rates": "exchange rates",
        "new_net": "net amount of new plans",
        "renewal_net": "net amount of renewals",
    }
    changes = [
        f"{label} {old:,f} -> {new:,f} ({new - old:+,f})"
        for key, label in labels.items()
        if (old := Decimal(was[key])) != (new := Decimal(now[key]))
    ]
    return f"in {now['currency']}: {', '.join(changes) or 'the rates, or how the amounts split'}"
