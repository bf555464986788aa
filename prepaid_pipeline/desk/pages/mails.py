"""Mails that failed or may have arrived: sent again, settled, or sent to another address."""

from starlette.responses import Response

from prepaid_pipeline.addresses import recipient_address
from prepaid_pipeline.database import queries
from prepaid_pipeline.desk.pages.lists import Filter, cut
from prepaid_pipeline.desk.pages.payments import sentence
from prepaid_pipeline.desk.visits import Visit, one, rows
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.language.english import plural
from prepaid_pipeline.teams import Team

SHOWS = ("failed", "unknown")


def mails(visit: Visit) -> Response:
    """The page of emails that did not reach their customers, oldest first."""
    asked = Filter.of(visit, SHOWS)
    with visit.acting() as connection:
        found = rows(connection, "desk/mails", "list", asked.params(visit))
    shown, after = cut(found, "email_id")
    return visit.page("mails.html", asked=asked, mails=shown, after=after)


def mail(visit: Visit) -> Response:
    """One of them, and what can be done about it."""
    number = visit.number("mail")
    with visit.acting() as connection:
        found = one(
            connection, "desk/mails", "one", {"mail": number}, f"undelivered email {number}"
        )
    may_correct = (
        found.status == "failed"
        and found.service_plan_id is not None
        and Team.CUSTOMER_SUCCESS in visit.person.teams
    )
    return visit.page("mail.html", mail=found, may_correct=may_correct)


def resend(visit: Visit) -> Response:
    """Send those that were ticked again, as they were: all of them, or none."""
    chosen = [
        int(value)
        for value in visit.form.getlist("mail")
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19
    ]
    if not chosen:
        return visit.go("/mails", "Choose at least one email first.", "info")
    try:
        with visit.acting() as connection:
            asked = queries.statement("desk/mails", "resend").execute(connection, {"mails": chosen})
            resent = asked.scalar_one()
    except NotAllowed as error:
        return visit.go("/mails", f"{sentence(error)}. Nothing was sent.", "refused")
    return visit.go("/mails", f"{plural(resent, 'email')} will be sent again.")


def settle(visit: Visit) -> Response:
    """Take one off the list: it has arrived, or is not needed any more."""
    number = visit.number("mail")
    params = {"mail": number, "note": visit.typed("note")}
    return _done(visit, number, "settle", params, f"Email {number} is settled.")


def address(visit: Visit) -> Response:
    """Send a failed one to another address, which becomes the customer's."""
    number, typed = visit.number("mail"), visit.typed("address")
    try:
        wanted = recipient_address(typed, None).addr_spec
    except ValueError as error:
        return visit.go(f"/mails/{number}", f"{sentence(error)}.", "refused", typed)
    params = {"mail": number, "address": wanted}
    return _done(visit, number, "correct", params, f"Email {number} will go to {wanted}.")


def _done(visit: Visit, number: int, part: str, params: dict[str, object], said: str) -> Response:
    try:
        with visit.acting() as connection:
            queries.statement("desk/mails", part).execute(connection, params)
    except NotAllowed as error:
        note = visit.typed("note") or visit.typed("address")
        return visit.go(f"/mails/{number}", f"{sentence(error)}.", "refused", note)
    return visit.go("/mails", said)
