"""The settings of renewals: when the next term opens, how long an invoice may stay unpaid."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.environment import KEEP_EMPTY, FromEnvironment
from prepaid_pipeline.settings.parsers import YEAR, parsed, rising_days, whole_number

REMINDER_DAYS = (3, 7, 14)
PAYMENT_DAYS = 30
CLEARING_DAYS = 14
PAYMENT_MAX_AGE_DAYS = 90


class RenewalSettings(FromEnvironment):
    """All are calendar days in the installation's time zone."""

    grace_days: Annotated[int, whole_number(0, YEAR)] = Field(
        7, description="days after its end in which a term is still renewed without a gap"
    )
    lead_days: Annotated[int, whole_number(0, YEAR)] = Field(
        7, description="days before its start on which the next term is opened and invoiced"
    )
    reminder_days: Annotated[
        tuple[int, ...],
        parsed(
            rising_days,
            f"whole numbers from 1 to {YEAR} in ascending order, separated by commas, such as"
            " 3,7,14, or none",
        ),
    ] = Field(
        REMINDER_DAYS,
        description="days after an invoice is due on which a customer is reminded, rising",
        json_schema_extra={KEEP_EMPTY: True},
    )
    payment_days: Annotated[int | None, whole_number(1, YEAR, none="never")] = Field(
        PAYMENT_DAYS,
        description="days after an invoice is due until it is voided; None: it stays open",
    )
    clearing_days: Annotated[int, whole_number(0, YEAR)] = Field(
        CLEARING_DAYS,
        description="days for which a payment that is clearing at the bank keeps its customer from"
        " being reminded and the plan from being cancelled",
    )
    payment_max_age_days: Annotated[int | None, whole_number(0, 10 * YEAR, none="never")] = Field(
        PAYMENT_MAX_AGE_DAYS,
        description="days that a payment may be older than its invoice; None: of any age",
    )

    payments_expected_days: Annotated[int | None, whole_number(1, YEAR, none="never")] = Field(
        None,
        description="days within which each usual source of payment records delivers one; None:"
        " not looked at",
    )

    @model_validator(mode="after")
    def _last_reminder_comes_first(self) -> Self:
        days, last = self.reminder_days, self.payment_days
        if days and last is not None and days[-1] >= last:
            raise SettingError(
                f"PREPAID_PAYMENT_DAYS='{last}': expected more than the last day of"
                f" PREPAID_REMINDER_DAYS, which is {days[-1]}"
            )
        return self
