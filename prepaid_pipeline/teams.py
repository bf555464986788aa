"""The teams whose people work with the product; the database has the same (sql/schema)."""

from enum import StrEnum


class Team(StrEnum):
    """A team is also the name of a role of the database, of what tasks say and of owners."""

    FINANCE = "finance"
    CUSTOMER_SUCCESS = "customer_success"
    LEADERSHIP = "leadership"
    ENGINEERING = "engineering"

    @property
    def label(self) -> str:
        """As a person reads it: Customer success."""
        return self.value.replace("_", " ").capitalize()


# Teams that tasks are given to: somebody leads each, whom overdue ones are told.
LED = (Team.FINANCE, Team.CUSTOMER_SUCCESS)
