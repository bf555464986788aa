"""The nine import files: their columns and what they need, in the order in which they are read."""

from dataclasses import dataclass
from datetime import tzinfo

from prepaid_pipeline.importer import delivered, values
from prepaid_pipeline.importer.values import Parser


@dataclass(frozen=True)
class Column:
    """One column. ``optional``: the header may lack it. ``empty``: a field may be empty.

    ``longest`` in characters: 200 keep every key, of up to three columns and 4 bytes per
    character, below the 2,704 bytes that PostgreSQL can index.
    """

    name: str
    parse: Parser
    optional: bool = False
    empty: bool = False
    longest: int = 200


@dataclass(frozen=True)
class File:
    """One import file. Files that it ``needs`` are read before it; refused ones stop it."""

    name: str
    columns: tuple[Column, ...]
    needs: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        return f"{self.name}.csv"

    @property
    def header(self) -> str:
        """The header as it is expected, for messages; what may be missing is in brackets."""
        required = ",".join(column.name for column in self.columns if not column.optional)
        return required + "".join(f"[,{c.name}]" for c in self.columns if c.optional)


def files(zone: tzinfo) -> tuple[File, ...]:
    """All files in dependency order. ``zone``: of moments that name no offset from UTC."""
    tax_class = Column("tax_class", values.words, optional=True, empty=True)
    price_rules = (
        Column("price_includes_tax", values.truth, optional=True, empty=True),
        Column("valid_from", values.day, optional=True, empty=True),
    )
    return (
        File(
            "customers",
            (
                Column("customer_ref", values.words),
                Column("name", values.words),
                Column("email", values.email, empty=True),
                Column("country", values.country),
                Column("currency", values.words),
                Column("tax_exempt", values.truth),
                Column("tax_exempt_reason", values.words, optional=True, empty=True),
            ),
        ),
        File(
            "plans",
            (
                Column("plan_code", values.words),
                Column("name", values.words),
                Column("term", values.term),
                Column("currency", values.words),
                Column("price", values.price, empty=True),
                tax_class,
                *price_rules,
            ),
        ),
        File(
            "addons",
            (
                Column("addon_code", values.addon_code),
                Column("name", values.words),
                Column("term", values.term),
                Column("currency", values.words),
                Column("price", values.price),
                Column("recurring", values.truth),
                tax_class,
                *price_rules,
            ),
        ),
        File(
            "tax_rates",
            (
                Column("country", values.country),
                Column("tax_class", values.words),
                Column("rate", values.rate),
                Column("valid_from", values.day),
            ),
        ),
        File(
            "subscriptions",
            (
                Column("subscription_ref", values.words),
                Column("customer_ref", values.words),
                Column("plan_code", values.words),
                Column("started_on", values.local_day(zone)),
                Column("auto_renew", values.truth),
                Column("price", values.price, empty=True),
                Column("addons", values.codes, empty=True, longest=10_000),
                Column("cancelled_on", values.local_day(zone), optional=True, empty=True),
                Column("quantity", values.count(1), optional=True, empty=True),
            ),
            needs=("customers", "plans", "addons"),
        ),
        File(
            "discounts",
            (
                Column("subscription_ref", values.words),
                Column("discount_code", values.words),
                Column("name", values.words),
                Column("percent", values.percentage, empty=True),
                Column("amount", values.positive, empty=True),
                Column("terms", values.count(0), empty=True),
                Column("starts_on", values.day, empty=True),
            ),
            needs=("customers", "plans", "addons", "subscriptions"),
        ),
        File(
            "service_plans",
            (
                Column("subscription_ref", values.words),
                Column("start_date", values.day),
                Column("end_date", values.day),
                Column("price", values.price),
                Column("status", values.status),
            ),
            needs=("customers", "plans", "addons", "subscriptions", "discounts"),
        ),
        File(
            "transactions",
            (
                Column("provider", values.words),
                Column("provider_ref", values.words),
                Column("invoice_number", values.words, empty=True),
                Column("amount", values.delivered_number, longest=delivered.LONGEST),
                Column("currency", values.words),
                Column("status", values.words),
                Column("occurred_at", values.delivered_moment(zone), longest=delivered.LONGEST),
                Column("customer_ref", values.words, optional=True, empty=True),
            ),
        ),
        File(
            "exchange_rates",
            (
                Column("month", values.month),
                Column("currency", values.words),
                Column("rate", values.exchange_rate),
                Column("reporting_currency", values.words, optional=True, empty=True),
            ),
        ),
    )
