"""Held plans, and a plan's whole story with what can be done about it."""

from collections.abc import Collection

from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from prepaid_pipeline.addresses import recipient_address
from prepaid_pipeline.audit import seals
from prepaid_pipeline.database import queries
from prepaid_pipeline.desk.navigation import DECIDERS, ON_PAYMENTS
from prepaid_pipeline.desk.pages.lists import Filter, cut
from prepaid_pipeline.desk.pages.payments import sentence
from prepaid_pipeline.desk.visits import Visit, one, rows
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.process import why
from prepaid_pipeline.teams import Team


def held(visit: Visit) -> Response:
    """Plans that wait for a person, oldest first, with the reason and what can be done."""
    asked = Filter.of(visit)
    with visit.acting() as connection:
        found = rows(connection, "desk/held", "list", asked.params(visit))
    shown, after = cut(found, "hold_id")
    return visit.page("held.html", asked=asked, holds=shown, after=after)


def find(visit: Visit) -> Response:
    """From an invoice number or a plan's id to the plan."""
    name = visit.asked("name")
    with visit.acting() as connection:
        found = rows(connection, "desk/plans", "find", {"name": name}) if name else []
    if not found:
        return visit.go(
            "/", f"There is no service plan {name}, and no invoice of that number.", "info"
        )
    return RedirectResponse(f"/plans/{found[0].service_plan_id}", 303)


def plan(visit: Visit) -> Response:
    """Everything about one plan, in order: steps, invoice, payment, sign-offs, mails."""
    plan_id = visit.number("plan")
    params = {"plan": plan_id}
    teams = visit.person.teams
    with visit.acting() as connection:
        found = one(connection, "desk/plans", "one", params, f"service plan {plan_id}")
        holds = rows(connection, "desk/held", "of_plan", params)
        return visit.page(
            "plan.html",
            plan=found,
            why=_why(connection, plan_id, teams),
            # Whether the log is whole, is for those who may read it.
            proof=seals.of_plan(connection, plan_id) if Team.ENGINEERING in teams else None,
            events=rows(connection, "desk/plans", "events", params),
            holds=holds,
            may_release=bool(set(DECIDERS) & set(teams)),
            may_give_address=Team.CUSTOMER_SUCCESS in teams
            and any(hold.reason_code == "no_email" for hold in holds),
            may_void=Team.FINANCE in teams and found.invoice_status == "Open",
            may_cancel=Team.FINANCE in teams
            and found.status in ("Pending", "Processing", "Active")
            and found.origin == "pipeline",
        )


def _why(connection: Connection, plan_id: int, teams: Collection[str]) -> str | None:
    """Why the plan is what it is, as far as these teams may know it; as ``prepaid story`` says it.

    Whoever may not read payments is not told what a plan still waits for: None.
    """
    source = "process/story" if set(ON_PAYMENTS) & set(teams) else "desk/plans"
    params = {"plan": plan_id}
    facts = queries.statement(source, "why").execute(connection, params).one_or_none()
    if facts is None:
        return None
    source = "process/story" if Team.ENGINEERING in teams else "desk/plans"
    done = queries.statement(source, "done").execute(connection, params).one_or_none()
    return why.why(facts, done)


def release(visit: Visit) -> Response:
    """Release every hold of the plan; it continues where it stopped."""
    plan_id = visit.number("plan")
    params = {"plan": plan_id, "note": visit.typed("note")}
    return _done(
        visit,
        plan_id,
        "desk/held",
        "release",
        params,
        "The plan is released and continues where it stopped.",
    )


def address(visit: Visit) -> Response:
    """Give the customer the address that the plan is held for, and release the plan."""
    plan_id = visit.number("plan")
    typed = visit.typed("address")
    try:
        wanted = recipient_address(typed, None).addr_spec
    except ValueError as error:
        return visit.go(f"/plans/{plan_id}", f"{sentence(error)}.", "refused", typed)
    params = {"plan": plan_id, "address": wanted, "note": "the customer's address was entered"}
    try:
        with visit.acting() as connection:
            queries.statement("desk/plans", "address").execute(connection, params)
            queries.statement("desk/held", "release").execute(connection, params)
    except NotAllowed as error:
        return visit.go(f"/plans/{plan_id}", f"{sentence(error)}.", "refused", typed)
    return visit.go(f"/plans/{plan_id}", "The address is saved, and the plan continues.")


def void(visit: Visit) -> Response:
    """Take back the open invoice; with reissue a new one follows."""
    plan_id = visit.number("plan")
    reissue = visit.typed("reissue") == "yes"
    number = visit.typed("invoice_number")
    params = {"invoice_number": number, "reissue": reissue, "note": visit.typed("note")}
    said = f"Invoice {number} is void. " + (
        "The next run issues a new one." if reissue else "The plan is held until somebody decides."
    )
    return _done(visit, plan_id, "desk/plans", "void", params, said)


def cancel(visit: Visit) -> Response:
    """Cancel this plan: at the end of its term, or at once with credit for the unused days."""
    plan_id = visit.number("plan")
    at_once = visit.typed("when") == "at_once"
    try:
        with visit.acting() as connection:
            found = one(
                connection,
                "desk/plans",
                "subscription",
                {"plan": plan_id},
                f"service plan {plan_id}",
            )
            params = {
                "subscription": found.subscription_id,
                "plan": plan_id,
                "at_once": at_once,
                "on_date": None,
                "note": visit.typed("note"),
            }
            endings = list(
                queries.statement("billing/subscriptions", "cancel").execute(connection, params)
            )
    except NotAllowed as error:
        return visit.go(f"/plans/{plan_id}", f"{sentence(error)}.", "refused", visit.typed("note"))
    said = " ".join(
        f"Plan {ending.service_plan_id} {ending.outcome}"
        f"{f' on {ending.ends_on}' if ending.ends_on else ''}"
        f"{f', credit note {ending.credit_note_number}' if ending.credit_note_number else ''}."
        for ending in endings
    )
    return visit.go(f"/plans/{plan_id}", said or "The subscription ends with its term.")


def _done(
    visit: Visit, plan_id: int, sql: str, part: str, params: dict[str, object], said: str
) -> Response:
    try:
        with visit.acting() as connection:
            queries.statement(sql, part).execute(connection, params)
    except NotAllowed as error:
        return visit.go(f"/plans/{plan_id}", f"{sentence(error)}.", "refused", visit.typed("note"))
    return visit.go(f"/plans/{plan_id}", said)
