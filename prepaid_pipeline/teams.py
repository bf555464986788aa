"""The teams whose people work with the product, for Python; the database has a role for each."""

from enum import StrEnum


class Team(StrEnum):
    """A team's name: of its role in the database, in tasks, settings and owners of assets."""

    FINANCE = "finance"
    CUSTOMER_SUCCESS = "customer_success"
    LEADERSHIP = "leadership"
    ENGINEERING = "engineering"

    @property
    def label(self) -> str:
        """As a person reads it: Customer success."""
        return self.value.replace("_", " ").capitalize()

    @property
    def owner(self) -> str:
        """As Dagster names the owner of an asset."""
        return f"team:{self.value}"


# As plain texts, for statements and the command line.
TEAMS = tuple(team.value for team in Team)
# Tasks are given to these; each has a lead, who is told of what stays overdue.
LED = (Team.FINANCE, Team.CUSTOMER_SUCCESS)
