"""The parts of ``sql/importer/<file>.sql`` in the order in which they run.

``loading`` runs them. First the part ``incoming`` makes the table that the records arrive in, by
the part ``copy``; before ``write`` the part ``count`` says how many rows are new and how many have
changed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Parts:
    """The parts of one file.

    ``prepare`` compares the records with what is known, each part of ``check`` returns bad lines.
    If there are none, ``arrive`` notes that the file was there, and ``write`` takes what is new or
    changed. ``differences``: a part of that name returns what is not taken, and why. ``analyze``:
    a part of that name renews the statistics after many new rows.
    """

    prepare: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    differences: bool = False
    arrive: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    analyze: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All parts of the file, in their order."""
        return (
            *("incoming", "copy"),
            *self.prepare,
            *self.check,
            *(("differences",) if self.differences else ()),
            *self.arrive,
            "count",
            *self.write,
            *(("analyze",) if self.analyze else ()),
        )


PARTS = {
    "customers": Parts(
        prepare=("statistics", "tax_exempt_reason", "compare", "erased"),
        check=(
            "problems_duplicate",
            "problems_reason",
            "problems_currency",
            "problems_currency_in_use",
        ),
        differences=True,
        write=("add", "change"),
        analyze=True,
    ),
    "plans": Parts(
        prepare=("tax_class", "price_rules", "compare", "compare_prices"),
        check=(
            "problems_duplicate",
            "problems_currency",
            "problems_decimals",
            "problems_disagreement",
            "problems_term_in_use",
        ),
        write=("add", "change", "add_prices", "change_prices"),
    ),
    "addons": Parts(
        prepare=("tax_class", "price_rules", "compare", "compare_prices"),
        check=(
            "problems_duplicate",
            "problems_currency",
            "problems_decimals",
            "problems_disagreement",
        ),
        write=("add", "change", "add_prices", "change_prices"),
    ),
    "tax_rates": Parts(
        prepare=("compare",), check=("problems_duplicate",), write=("add", "change")
    ),
    "subscriptions": Parts(
        prepare=("statistics", "resolved", "resolve"),
        check=(
            "problems_duplicate",
            "problems_customer",
            "problems_plan",
            "problems_decimals",
            "problems_addon",
            "problems_cancelled_on",
            "problems_moved",
        ),
        arrive=("no_history_follows",),
        write=("audit_addons", "add", "await_history", "change", "remove_addons", "add_addons"),
        analyze=True,
    ),
    "discounts": Parts(
        prepare=("statistics", "resolve", "compare"),
        check=(
            "problems_subscription",
            "problems_duplicate",
            "problems_either",
            "problems_decimals",
        ),
        arrive=("discounts_arrived",),
        write=("add", "change"),
        analyze=True,
    ),
    "service_plans": Parts(
        prepare=(
            "statistics",
            "lock",
            "resolved",
            "resolve",
            "resolved_statistics",
            "last_known",
            "find_last_known",
            "price_days",
            "arriving",
            "chain",
            "arriving_statistics",
            "sold",
            "price_addons",
            "anchors",
            "find_anchors",
        ),
        check=(
            "problems_subscription",
            "problems_dates",
            "problems_decimals",
            "problems_sequence",
            "problems_before_known",
            "problems_addon_price",
        ),
        differences=True,
        arrive=("history_arrived",),
        write=("suspend_constraints", "add", "add_orders", "resume_constraints", "move_anchors"),
        analyze=True,
    ),
    "transactions": Parts(analyze=True),
    "exchange_rates": Parts(
        prepare=("complete", "compare"),
        check=(
            "problems_without_reporting_currency",
            "problems_currency",
            "problems_same_currency",
            "problems_duplicate",
        ),
        write=("add", "change"),
    ),
}
