"""The data quality rules in business words, and every threshold. How they are run: quality.py.

A rule is a Great Expectations expectation with its arguments. Rules over several tables are queries
in ``sql/revenue/validation`` that return the rows that break them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Thresholds. Days are calendar days before the business date; shares are parts of 1.
RECORD_DAYS = 3
WAITING_DAYS = 7
TASK_DAYS = 14
HOLD_DAYS = 14
# The current month is computed every hour; a month is closed in the night after its days of grace.
FIGURES_HOURS = 3
CLOSE_DAYS = 1
CUSTOMERS_WITH_EMAIL = 0.98
# What the queries read with current_setting().
SESSION_SETTINGS = {
    "prepaid.record_days": str(RECORD_DAYS),
    "prepaid.waiting_days": str(WAITING_DAYS),
    "prepaid.task_days": str(TASK_DAYS),
    "prepaid.hold_days": str(HOLD_DAYS),
}

KINDS = ("new", "renewal", "reactivation", "change")
MOVEMENTS = ("new", "reactivation", "expansion", "contraction", "churn")
REVERSALS = ("Refunded", "Chargeback", "ChargebackReversed", "Failed")


@dataclass(frozen=True)
class Rule:
    """``name`` says in words what must hold. ``warning``: shown, but nothing is stopped by it."""

    name: str
    expectation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    query: str | None = None
    warning: bool = False

    @property
    def says(self) -> str:
        """The rule as a sentence."""
        sentence = self.name.replace("_", " ")
        return sentence[0].upper() + sentence[1:] + "."


@dataclass(frozen=True)
class Suite:
    """The rules of one asset over one table or view; ``keys`` name a row in the samples."""

    asset: str
    schema: str
    table: str
    keys: tuple[str, ...]
    rules: tuple[Rule, ...]


def _query(script: str, name: str, *, warning: bool = False) -> Rule:
    return Rule(
        name, "UnexpectedRowsExpectation", query=f"revenue/validation/{script}", warning=warning
    )


def _present(name: str, column: str, mostly: float = 1, *, warning: bool = False) -> Rule:
    arguments = {"column": column, "mostly": mostly}
    return Rule(name, "ExpectColumnValuesToNotBeNull", arguments, warning=warning)


def _at_least(name: str, column: str, lowest: int) -> Rule:
    arguments = {"column": column, "min_value": lowest}
    return Rule(name, "ExpectColumnValuesToBeBetween", arguments)


def _one_of(name: str, column: str, words: tuple[str, ...]) -> Rule:
    arguments = {"column": column, "value_set": list(words)}
    return Rule(name, "ExpectColumnValuesToBeInSet", arguments)


MONTHLY_FIGURES = (
    Suite(
        "mrr",
        "revenue",
        "staged_mrr",
        ("month", "currency", "plan_code"),
        (
            _query("staged_figures", "one_mrr_row_per_month_currency_and_plan"),
            _query("staged_figures", "mrr_lies_in_the_months_asked_for"),
            _present("mrr_is_known", "mrr"),
            _at_least("mrr_is_never_negative", "mrr", 0),
            _at_least("a_plan_with_mrr_has_active_terms", "active_plans", 1),
            _query("staged_figures", "mrr_is_the_terms_counted_one_by_one"),
        ),
    ),
    Suite(
        "mrr_by_country",
        "revenue",
        "staged_mrr_by_country",
        ("month", "currency", "country"),
        (
            _query("staged_figures", "one_mrr_row_per_month_currency_and_country"),
            _at_least("mrr_of_a_country_is_never_negative", "mrr", 0),
            _query("staged_figures", "a_country_has_no_more_customers_than_plans"),
            _query("staged_figures", "countries_add_up_to_the_mrr"),
            _query("staged_figures", "every_customer_is_in_a_country"),
        ),
    ),
    Suite(
        "mrr_movements",
        "revenue",
        "staged_mrr_movements",
        ("month", "currency", "movement"),
        (
            _query("staged_figures", "one_row_per_month_currency_and_movement"),
            _one_of("movements_are_of_five_kinds", "movement", MOVEMENTS),
            _at_least("a_movement_has_customers", "customers", 1),
            _query("staged_figures", "gains_are_positive_and_losses_negative"),
            _query("staged_figures", "start_and_movements_make_the_end"),
        ),
    ),
    Suite(
        "mrr_movements",
        "revenue",
        "staged_mrr_bridge",
        ("month", "currency"),
        (
            _query("staged_figures", "a_month_starts_where_the_last_one_ended"),
            _query("staged_figures", "movements_lead_to_the_mrr_of_the_month"),
        ),
    ),
    Suite(
        "plan_activations",
        "revenue",
        "staged_plan_activations",
        ("month", "currency", "plan_code", "kind"),
        (
            _query("staged_figures", "one_row_per_month_currency_plan_and_kind"),
            _one_of("activations_are_of_four_kinds", "kind", KINDS),
            _present("the_net_amount_is_known", "net_amount"),
            _at_least("the_net_amount_is_never_negative", "net_amount", 0),
            _query("staged_figures", "kinds_add_up_to_all_activations"),
        ),
    ),
    Suite(
        "activations_by_country",
        "revenue",
        "staged_activations_by_country",
        ("month", "currency", "country", "kind"),
        (
            _query("staged_figures", "one_row_per_month_currency_country_and_kind"),
            _query("staged_figures", "countries_add_up_to_the_activations"),
        ),
    ),
    Suite(
        "payment_reversals",
        "revenue",
        "staged_payment_reversals",
        ("month", "currency", "kind"),
        (
            _query("staged_figures", "one_row_per_month_currency_and_kind_of_reversal"),
            _query("staged_figures", "reversals_lie_in_the_months_asked_for"),
            _one_of("reversals_are_of_four_kinds", "kind", REVERSALS),
            _at_least("a_reversal_has_records", "records", 1),
            _query("staged_figures", "only_a_reversed_chargeback_brings_money_back"),
        ),
    ),
    Suite(
        "credit_notes_issued",
        "revenue",
        "staged_credit_notes_issued",
        ("month", "currency"),
        (
            _query("staged_figures", "one_row_of_credit_notes_per_month_and_currency"),
            _query("staged_figures", "credit_notes_are_net_and_tax"),
        ),
    ),
    Suite(
        "renewal_outcomes",
        "revenue",
        "staged_renewal_outcomes",
        ("month", "currency", "plan_code", "country"),
        (
            _query("staged_retention", "one_row_of_renewals_per_month_currency_plan_and_country"),
            _query("staged_retention", "outcomes_add_up_to_the_terms_due"),
            _query("staged_retention", "terms_due_are_those_that_ended_one_by_one"),
            _query("staged_retention", "nothing_waits_once_the_days_of_grace_are_over"),
        ),
    ),
    Suite(
        "retention",
        "revenue",
        "staged_retention",
        ("month", "currency", "window_months"),
        (
            _query("staged_retention", "one_row_of_retention_per_month_currency_and_window"),
            _query("staged_retention", "no_more_is_kept_than_there_was"),
            _query("staged_retention", "retention_over_a_month_is_what_the_movements_say"),
        ),
    ),
    Suite(
        "retention",
        "revenue",
        "staged_cohorts",
        ("month", "currency", "cohort"),
        (
            _query("staged_retention", "one_row_per_month_currency_and_cohort"),
            _query("staged_retention", "no_more_of_a_cohort_is_kept_than_there_was"),
            _query("staged_retention", "cohorts_add_up_to_customers_and_mrr"),
        ),
    ),
    Suite(
        "deferred_revenue",
        "revenue",
        "staged_deferred_revenue",
        ("month", "currency"),
        (
            _query("staged_retention", "one_row_of_deferred_revenue_per_month_and_currency"),
            _query(
                "staged_retention",
                "billed_less_recognised_and_refunded_is_the_change_of_what_is_owed",
            ),
            _query("staged_retention", "a_month_owes_at_first_what_the_last_one_owed"),
            _query("staged_retention", "what_is_owed_is_the_terms_counted_one_by_one"),
            _query("staged_retention", "nobody_is_owed_less_than_nothing"),
        ),
    ),
    Suite(
        "deferred_revenue",
        "revenue",
        "staged_reconciliation",
        ("month", "currency", "line"),
        (
            _query("staged_retention", "one_row_per_month_currency_and_line"),
            _query("staged_retention", "every_term_that_was_billed_has_its_invoice"),
            _query("staged_retention", "every_invoice_is_paid_with_money_that_came"),
        ),
    ),
)

MONTHLY_REPORT = (
    Suite(
        "monthly_revenue_report",
        "revenue",
        "staged_monthly_report",
        ("month", "currency"),
        (
            _query("staged_report", "one_report_per_month_and_currency"),
            _query("staged_report", "the_bridge_adds_up_as_shown"),
            _query("staged_report", "plans_add_up_to_the_mrr_as_shown"),
            _query("staged_report", "countries_add_up_to_the_headline"),
            _query("staged_report", "activations_add_up_to_the_headline"),
            _query("staged_report", "the_report_shows_the_published_mrr"),
            _query("staged_report", "the_report_shows_what_was_taken_back"),
            _query("staged_report", "renewals_add_up_as_shown"),
            _query("staged_report", "cohorts_add_up_to_the_mrr_as_shown"),
            _query("staged_report", "deferred_revenue_and_its_reconciliation_add_up_as_shown"),
        ),
    ),
)

INPUTS = (
    Suite(
        "customers",
        "prepaid",
        "customers",
        ("customer_id",),
        (
            _present(
                "customers_can_be_reached_by_email", "email", CUSTOMERS_WITH_EMAIL, warning=True
            ),
        ),
    ),
    Suite(
        "plans",
        "prepaid",
        "plans",
        ("plan_code",),
        (_query("inputs", "plans_that_renew_have_a_price", warning=True),),
    ),
    Suite(
        "tax_rates",
        "prepaid",
        "tax_rates",
        ("country", "tax_class"),
        (_query("inputs", "countries_of_customers_have_a_tax_rate", warning=True),),
    ),
    Suite(
        "subscriptions",
        "prepaid",
        "subscriptions",
        ("subscription_id",),
        (_query("inputs", "agreed_prices_have_the_decimals_of_their_currency"),),
    ),
    Suite(
        "service_plans",
        "prepaid",
        "service_plans",
        ("service_plan_id",),
        (
            _query("inputs", "plans_belong_to_the_customer_of_their_subscription"),
            _query("inputs", "plans_are_in_the_currency_of_their_customer"),
            _query("inputs", "amounts_have_the_decimals_of_their_currency"),
            _query("inputs", "activated_plans_are_paid_or_held"),
            _query("inputs", "terms_are_as_long_as_their_plan_says", warning=True),
        ),
    ),
    Suite(
        "holds",
        "prepaid",
        "holds",
        ("hold_id",),
        (_query("inputs", "held_plans_are_released_in_time", warning=True),),
    ),
    Suite(
        "charges",
        "prepaid",
        "charges",
        ("service_plan_id", "line_number"),
        (_query("inputs", "charges_are_what_was_invoiced"),),
    ),
    Suite(
        "invoices",
        "prepaid",
        "invoices",
        ("invoice_number",),
        (_query("inputs", "invoices_are_the_sum_of_their_lines"),),
    ),
    Suite(
        "transactions",
        "prepaid",
        "transactions",
        ("transaction_id",),
        (
            _query("inputs", "payment_records_get_an_outcome_in_time", warning=True),
            _query("inputs", "pending_and_unknown_payments_are_cleared_up_in_time", warning=True),
        ),
    ),
    Suite(
        "tasks",
        "prepaid",
        "tasks",
        ("task_id",),
        (_query("inputs", "tasks_are_decided_in_time", warning=True),),
    ),
    Suite(
        "sign_offs",
        "prepaid",
        "sign_offs",
        ("sign_off_id",),
        (_query("inputs", "what_is_approved_was_signed"),),
    ),
    Suite(
        "emails",
        "prepaid",
        "emails",
        ("email_id",),
        (_query("inputs", "confirmations_are_delivered", warning=True),),
    ),
    Suite(
        "audit_log",
        "prepaid",
        "audit_log",
        ("audit_id",),
        (_query("inputs", "activated_plans_are_in_the_provisioning_log"),),
    ),
)
