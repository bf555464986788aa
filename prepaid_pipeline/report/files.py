"""Writes the report files from the stored versions. Nothing is computed here, so a file that was
lost, or that a killed run did not write, comes back with the same content.
"""

from datetime import date
from itertools import groupby
from pathlib import Path

from sqlalchemy import Engine

from prepaid_pipeline.report import pages
from prepaid_pipeline.report.store import INDEX, Store
from prepaid_pipeline.report.versions import Version, load


def write(engine: Engine, store: Store, first_month: date, last_month: date, grace: int) -> Path:
    """Write the pages of the months in the range, and the index; returns the last month's page.

    A closed version's own file is written once and left alone from then on.
    """
    with engine.connect() as connection:
        every = load(connection, date.min, date.max)
    latest = []
    for month, of_month in groupby(every, key=lambda version: version.month):
        versions = list(of_month)
        latest.append(versions[-1])
        if first_month <= month <= last_month:
            _write_month(store, versions, grace)
    store.write(store.root / INDEX, pages.index_html(latest[::-1]))
    return store.path(last_month, "html")


def _write_month(store: Store, versions: list[Version], grace: int) -> None:
    for end, version in enumerate(versions, start=1):
        report = pages.document(versions[:end], grace)
        targets: list[int | None] = [version.version] if version.is_closed else []
        if version is versions[-1]:
            targets.append(None)
        for target in targets:
            for kind, render in (("json", pages.as_json), ("html", pages.as_html)):
                path = store.path(version.month, kind, target)
                if target is None or not path.exists():
                    store.write(path, render(report))
