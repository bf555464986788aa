"""Tasks that wait too long: reminders to people, and to their team's lead."""

from sqlalchemy import Connection, Engine

from prepaid_pipeline.context import Context, transaction
from prepaid_pipeline.database import queries
from prepaid_pipeline.settings.load import Settings

_SQL = "people/overdue_tasks"


def remind_overdue(engine: Engine, settings: Settings, context: Context) -> int:
    """Order the mails about overdue tasks; how many mails.

    A task is overdue from the day after its due date, and goes to the lead ``escalate_days`` after
    it. Each address is told of a task once per stage, whoever asks how often.
    """
    with transaction(engine, context) as connection:
        return _remind(connection, settings, context)


def would_remind(engine: Engine, settings: Settings, context: Context) -> int:
    """How many mails would be ordered; changes nothing."""
    with transaction(engine, context) as connection:
        count = _remind(connection, settings, context)
        connection.rollback()
    return count


def _remind(connection: Connection, settings: Settings, context: Context) -> int:
    asked = context.parameters() | {
        "escalate_days": settings.escalate_days,
        "teams": list(settings.team_leads),
        "addresses": list(settings.team_leads.values()),
    }
    queries.statement(_SQL, "one_at_a_time").execute(connection, asked)
    return int(queries.statement(_SQL, "remind").execute(connection, asked).scalar_one())
