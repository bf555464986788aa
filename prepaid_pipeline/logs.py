"""Logs: one line per event on standard error, as text or as JSON (PREPAID_LOG_FORMAT).

An event has a name and fields that say which plan, batch, job and run it is about, counts and
durations. Names, addresses and what people wrote belong in the database and never in a log.
"""

import json
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prepaid_pipeline.settings.load import Settings

_ROOT = "prepaid_pipeline"
_FIELDS = "prepaid_fields"
# The innermost functions of an error, which say where it came from.
_FRAMES = 6


class EventFormatter(logging.Formatter):
    """A record as one line: JSON, or text with the fields behind it as ``name=value``."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line break in it: what failed keeps the words, not the lines."""
        # Of a run: the message alone, for what Dagster adds to it quotes what the database refused.
        meta = getattr(record, "dagster_meta", None)
        fields = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage() if meta is None else meta.get("orig_message", ""),
            **_of_dagster(meta or {}),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            # Not its text: what the database refuses it quotes, with the customer's data.
            fields |= _of_error(record.exc_info[1])
        if self._as_json:
            return json.dumps(fields, default=str, ensure_ascii=False)
        at, level, logger, event = (fields.pop(k) for k in ("at", "level", "logger", "event"))
        rest = "".join(f" {name}={value}" for name, value in fields.items())
        return " ".join(f"{at} {level} {logger}: {event}{rest}".split())


def configure(settings: Settings, quiet: bool = False) -> None:
    """Let this process's events go to standard error; again: change nothing but the format.

    ``quiet``: as text only warnings, for commands whose output a person reads.
    """
    as_json = settings.log_format == "json"
    logger = logging.getLogger(_ROOT)
    logger.handlers[:] = [_handler(as_json)]
    logger.setLevel(logging.WARNING if quiet and not as_json else logging.INFO)


def configure_service(settings: Settings) -> str:
    """The same for a process of Dagster's, with the warnings of all libraries; the name of
    Dagster's own log format that goes with it.
    """
    configure(settings)
    as_json = settings.log_format == "json"
    logging.getLogger().handlers[:] = [_handler(as_json)]
    logging.captureWarnings(True)
    # What Dagster says of its own parameters is nothing that anybody here can act on.
    warnings.filterwarnings("ignore", module=r"dagster\b")
    # They have handlers of their own.
    for name in (_ROOT, "dagster"):
        logging.getLogger(name).propagate = False
    return "json" if as_json else "colored"


def run_logger(name: str, level: str | int) -> logging.Logger:
    """The logger of a run's process, in place of Dagster's coloured one: a JSON line per event."""
    logger = logging.Logger(name, level)
    logger.addHandler(_handler(as_json=True))
    return logger


def event(logger: logging.Logger, name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event; fields that are None are left out."""
    known = {field: value for field, value in fields.items() if value is not None}
    logger.log(level, "%s", name, extra={_FIELDS: known})


@contextmanager
def timed(logger: logging.Logger, name: str, **fields: Any) -> Iterator[dict[str, Any]]:
    """Log an event with its duration in seconds when the block ends; fields can be added in it.

    When the block fails, the event says so with the error's type alone, and the error rises.
    """
    started = time.monotonic()
    try:
        yield fields
    except BaseException as error:
        seconds = round(time.monotonic() - started, 3)
        failed = {**fields, "seconds": seconds, "error": type(error).__name__}
        event(logger, f"{name} failed", logging.ERROR, **failed)
        raise
    event(logger, name, **fields, seconds=round(time.monotonic() - started, 3))


def _of_error(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames[-_FRAMES:]]
    return {"error": type(error).__name__, "where": " < ".join(reversed(where))}


class _StandardError(logging.StreamHandler[Any]):
    """Writes to what standard error is at that moment."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        return


def _handler(as_json: bool) -> logging.Handler:
    handler = _StandardError()
    handler.setFormatter(EventFormatter(as_json))
    return handler


def _of_dagster(meta: Mapping[str, Any]) -> dict[str, Any]:
    of_run = {"run_id": meta.get("run_id"), "job": meta.get("job_name"), "op": meta.get("op_name")}
    found = meta.get("dagster_event")
    if found is not None:
        # Dagster's old word for a run is still what it stores.
        of_run["dagster_event"] = found.event_type_value.replace("PIPELINE_", "RUN_")
    return {name: value for name, value in of_run.items() if value is not None}
