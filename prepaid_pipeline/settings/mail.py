"""The settings of mail: which server, how fast, how patient, who sends and who is written to."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from prepaid_pipeline.settings.environment import FromEnvironment
from prepaid_pipeline.settings.parsers import addresses, parts, whole_number

# RFC 5321, section 4.5.3.2.6, asks for 10 minutes.
ANSWER_SECONDS = 300


class MailSettings(FromEnvironment):
    """How emails are sent, and who gets some besides the customers."""

    smtp_url: str | None = Field(None, description="the mail server; None: emails become files")
    smtp_connections: Annotated[int, whole_number(1, 50)] = Field(
        4, description="how many connections to the server one sender may have"
    )
    smtp_timeout: Annotated[int, whole_number(1, 3600)] = Field(
        ANSWER_SECONDS,
        description="seconds that the server may take to answer once it has a whole email",
    )
    mail_rate: Annotated[int | None, whole_number(1, 10_000)] = Field(
        None, description="emails per second of one sender; None: as fast as the server takes them"
    )
    mail_retry_hours: Annotated[int, whole_number(1, 720)] = Field(
        96, description="hours from the first time that the server defers an email to the last try"
    )
    mail_from: str = Field(
        "Prepaid plans <billing@localhost>", description="the sender, as name and address"
    )
    seller: Annotated[tuple[str, ...], BeforeValidator(lambda text: parts(text, ";"))] = Field(
        (), description="the lines that name the seller on receipts"
    )
    report_recipients: Annotated[tuple[str, ...], BeforeValidator(addresses)] = Field(
        (), description="addresses that a closed month's report is emailed to"
    )
    alert_to: str | None = Field(None, description="addresses of alerts; None: only logged")
    anchor_to: str | None = Field(
        default_factory=lambda others: others["alert_to"],
        description="addresses of the audit log's daily anchor",
    )
