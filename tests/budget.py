"""How many examples a property on a database gets: half of them every day, all in make test-long.

Each run draws others, so that a week of them sees as much as a long one.
"""

from hypothesis import settings

_ALL = "long"
_FEWEST = 10


def register() -> None:
    """Before the command line names it: --hypothesis-profile."""
    settings.register_profile(_ALL)


def examples(many: int) -> int:
    """Of so many that the property is worth."""
    if settings.get_current_profile_name() == _ALL:
        return many
    return max(_FEWEST, many // 2)
