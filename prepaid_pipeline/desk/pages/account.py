"""Who is signed in, and ending that everywhere."""

from starlette.responses import Response

from prepaid_pipeline.desk.visits import Visit


def account(visit: Visit) -> Response:
    """The person's name and teams, when the session ends, and the way out of all of them."""
    desk = visit.desk.desk
    return visit.page(
        "account.html",
        idle_minutes=desk.idle_minutes,
        session_hours=desk.session_hours,
    )
