"""The window of business dates: what cannot be taken back waits until its day has come.

A database that has processed a real day (the daemon's, or that of a command without ``--as-of``)
belongs to real customers: for a later day nothing expires, nobody is reminded and no plan is
cancelled unless a person says that the date is meant. One that was filled by ``--as-of`` alone is
played with, as the demo is, and has no window.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from prepaid_pipeline.context import Context, transaction
from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.settings.load import Settings

_SQL = "process/window"


@dataclass(frozen=True)
class Window:
    """``today``: the business date of this machine's clock in ``zone``, in which the database
    counts its days. ``real``: whether the database has processed real days.
    """

    today: date
    zone: str
    real: bool

    def is_later(self, day: date) -> bool:
        """Whether what cannot be taken back must not happen for this day without being asked."""
        return self.real and day > self.today

    def is_too_early_to_open(self, context: Context) -> bool:
        """Whether opening for the context's day would be earlier than PREPAID_LEAD_DAYS allows."""
        return self.real and context.as_of > self.today + timedelta(context.lead_days)


def enter(engine: Engine, settings: Settings, context: Context, *, real_day: bool) -> Window:
    """The window for work on the context's day; ``real_day`` says that nobody chose the day."""
    found = look(engine, settings)
    if real_day and not found.real:
        note_real_day(engine, context)
        return replace(found, real=True)
    return found


def look(engine: Engine, settings: Settings) -> Window:
    """The window as it is now.

    The zone is the database's and not PREPAID_TIMEZONE: that may be another one in this shell.
    """
    with engine.connect() as connection:
        row = queries.statement(_SQL, "look").execute(connection, {}).one()
    zoned = settings.model_copy(update={"timezone": ZoneInfo(row.timezone)})
    return Window(zoned.today(), row.timezone, row.real)


def require_figures(engine: Engine, settings: Settings, day: date) -> None:
    """Refuse figures as of a day after today once the database has processed real days: months
    would be closed, and their reports sent, before their time. Raises NotAllowed.
    """
    found = look(engine, settings)
    if found.is_later(day):
        raise NotAllowed(
            f"{day} is after today, {found.today}: there are no figures as of a day that has not"
            " come"
        )


def note_real_day(engine: Engine, context: Context) -> None:
    """Remember, once and for all, that the database has processed a real day."""
    with transaction(engine, context) as connection:
        queries.statement(_SQL, "note_real_day").execute(connection, {"as_of": context.as_of})
