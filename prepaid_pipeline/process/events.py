"""The events of a story in words. What is stored keeps its own: sealed entries never change."""

import re
from collections.abc import Mapping
from typing import Any

from prepaid_pipeline.language.english import grouped, money, words

# What the view plan_events writes: "before -> after (detail) …". Statuses, codes, days and names
# have no blanks; what a person wrote comes after them.
_CHANGE = re.compile(r"(\S+) ->(?: (?!\()(\S+))?(.*)", re.DOTALL)
_DETAIL = re.compile(r"(\S+(?: to \S+)?|was \S+)? ?\(([a-z]+(?:_[a-z]+)+)\)")
_FIRST = re.compile(r"[a-z]+(?:_[a-z]+)+(?= |$)")
_TASK = re.compile(r"(task \d+: )([a-z_]+)( for )([a-z_]+)(?=, due on )")
_PAID = re.compile(r"(?<= )-?\d+(?:\.\d+)?(?= [A-Z]{3}(?: for |$))")


def shown(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event of a story (``at``, ``event``, ``actor``, ``what``) as people read it."""
    return {**event, "event": words(event["event"]), "what": what(event["event"], event["what"])}


def what(event: str, told: str | None) -> str:
    """What happened: ``Pending to Processing``; empty where the event's name says it all.

    Only what the process wrote is put in other words: a reference, a name or a note is not.
    """
    if not told:
        return ""
    match event:
        case "task_opened":
            return _TASK.sub(lambda task: words(task[0]), told, count=1)
        case "payment_record":
            return _PAID.sub(lambda amount: money(amount[0]), told, count=1)
        case "hold_placed":
            return grouped(_first_in_words(told, ":"))
        case "hold_released":
            return _first_in_words(told.replace(" -> released", "", 1))
        case "email_ordered":
            return _first_in_words(told)
        case "sign_off" | "task_assigned":
            return told
        case "transaction_assigned":
            return _changed(told)
    if event.endswith("_requested"):
        return told
    changed = grouped(_changed(told))
    if (detail := _DETAIL.match(changed)) is None:
        return changed
    start, end = detail.span(2)
    return changed[:start] + words(detail[2]) + changed[end:]


def _first_in_words(told: str, mark: str = "") -> str:
    """The code that a text begins with in words, and a ``mark`` before what follows it."""
    code = _FIRST.match(told)
    if code is None:
        return told
    rest = told[code.end() :]
    return f"{words(code[0])}{mark if rest else ''}{rest}"


def _changed(told: str) -> str:
    """``Pending to Processing``, and of what is no longer something: ``was parked``."""
    change = _CHANGE.match(told)
    if change is None:
        return told
    before, after, rest = change.groups()
    if after is None:
        return f"was {before}{rest}"
    return f"{after}{rest}" if before == after else f"{before} to {after}{rest}"
