"""People of every team, who cancel, change, void and assign."""

from tests.people.conftest import limited, person

__all__ = ["limited", "person"]
