"""How often what is different each time is done: less every day, all of it in make test-long.

The examples of a property on a database and the rounds of a race: each run has others, so that a
week of them sees as much as a long one.
"""

from hypothesis import settings

_ALL = "long"
_FEWEST = 10
_FEWEST_ROUNDS = 2


def register() -> None:
    """Before the command line names it: --hypothesis-profile."""
    settings.register_profile(_ALL)


def _every_day() -> bool:
    return settings.get_current_profile_name() != _ALL


def examples(many: int) -> int:
    """Of so many that the property is worth."""
    return max(_FEWEST, many // 2) if _every_day() else many


def rounds(many: int) -> int:
    """Of so many that the race is worth."""
    return max(_FEWEST_ROUNDS, many // 3) if _every_day() else many
