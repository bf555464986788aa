"""The settings of the sign-offs: who must approve twice, how long people have, who leads a team."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field

from prepaid_pipeline.settings.environment import FromEnvironment
from prepaid_pipeline.settings.parsers import (
    YEAR,
    approval_limits,
    one_of,
    origin,
    parsed,
    parts,
    percentage,
    whole_number,
)
from prepaid_pipeline.teams import LED

DESK_URL = parsed(origin, "an address without a path, such as https://desk.example.com")


def _team_leads(text: str) -> dict[str, str]:
    leads: dict[str, str] = {}
    for part in parts(text, ";"):
        team, _, address = (piece.strip() for piece in part.partition("="))
        local, at, domain = address.rpartition("@")
        usable = at and local and domain and not any(c.isspace() for c in address)
        if team not in LED or team in leads or not usable:
            raise ValueError(
                f": {part!r} cannot be read: expected {' and '.join(LED)}, each at most"
                " once with an address, such as finance=lead@example.com;customer_success=…"
            )
        leads[team] = address
    return leads


class SignOffSettings(FromEnvironment):
    """The rules of people's decisions."""

    second_approval_above: Annotated[Mapping[str, Decimal], BeforeValidator(approval_limits)] = (
        Field({}, description="currency (ISO 4217) -> amount above which two people approve")
    )
    concession_percent: Annotated[
        Decimal, parsed(percentage, "a percentage from 0 to 100, such as 5 or 12.5")
    ] = Field(
        Decimal(0),
        description="by how many per cent a person's own price may be below the list",
    )
    imported_concessions: Annotated[str, one_of("agreed", "wait")] = Field(
        "agreed", description="whether what was imported below the list waits for finance as well"
    )
    task_days: Annotated[int, whole_number(0, YEAR)] = Field(
        3, description="calendar days from a task's opening to its due date"
    )
    escalate_days: Annotated[int, whole_number(1, YEAR)] = Field(
        7, description="calendar days from a task's due date to the email to the team's lead"
    )
    team_leads: Annotated[Mapping[str, str], BeforeValidator(_team_leads)] = Field(
        {}, description="team -> its lead's address"
    )
    desk_url: Annotated[str | None, DESK_URL] = Field(
        None, description="what people type to get to the sign-off desk, without a slash at the end"
    )
