"""Writes the report files from the stored versions. Nothing is computed here, so a file that was
lost, or that a killed run did not write, comes back with the same content.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby

from sqlalchemy import Engine

from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.language import catalogue
from prepaid_pipeline.revenue.report.content.document import document
from prepaid_pipeline.revenue.report.content.schema import SCHEMA_FILE, schema
from prepaid_pipeline.revenue.report.content.versions import Version, load
from prepaid_pipeline.revenue.report.formats import html
from prepaid_pipeline.revenue.report.formats.drawing import Job, rendered
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.storage import ENDINGS, INDEX, Store

# The latest version's JSON is written last: where it is right, so is all else.
_KINDS = tuple(sorted(ENDINGS, key="json".__eq__))


def write(
    engine: Engine, settings: Settings, store: Store, first_month: date, last_month: date
) -> str:
    """Write the files of the months in the range, and the index; the address of the last page.

    A closed version's own files are written once and left alone from then on.
    """
    say = catalogue.load(settings)
    with engine.connect() as connection:
        every = load(connection, date.min, date.max)
    latest, missing = list[Version](), list[_Missing]()
    for month, of_month in groupby(every, key=lambda version: version.month):
        versions = list(of_month)
        latest.append(versions[-1])
        if first_month <= month <= last_month:
            missing += _missing(store, versions, settings)
    for wanted, made in zip(missing, rendered([m.job for m in missing]), strict=True):
        for kind in wanted.job.kinds:
            for name in wanted.names[kind]:
                store.write(name, made[kind])
    store.write(INDEX, html.index(latest[::-1], say).encode())
    store.write(SCHEMA_FILE, schema())
    return store.page(last_month)


def one(
    engine: Engine, settings: Settings, store: Store, month: date, kind: str, version: int | None
) -> str:
    """The address of one file, which is written if it is not there. Raises UnknownThing."""
    with engine.connect() as connection:
        versions = load(connection, month, month)
    if not versions:
        raise UnknownThing(
            f"there is no report for {month:%Y-%m}: run 'prepaid backfill {month:%Y-%m}"
            f" {month:%Y-%m}'"
        )
    if version is not None and version not in {v.version for v in versions if v.is_closed}:
        raise UnknownThing(f"there is no version {version} of the report of {month:%Y-%m}")
    name = store.name(month, kind, version)
    if name not in store.listed(month):
        shown = [v for v in versions if version is None or v.version <= version]
        job = Job(document(shown, settings.grace_days), settings.locale, settings.home, (kind,))
        store.write(name, job.run()[kind])
    return store.address(name)


@dataclass(frozen=True)
class _Missing:
    """Files that are to be written, all of one document; by kind, each under one or two names."""

    job: Job
    names: Mapping[str, Sequence[str]]


def _missing(store: Store, versions: Sequence[Version], settings: Settings) -> Iterator[_Missing]:
    """What a month lacks: files of its closed versions, and those of the latest if they differ."""
    month = versions[0].month
    there = store.listed(month)
    for end, version in enumerate(versions, start=1):
        names: dict[str, list[str]] = {kind: [] for kind in _KINDS}
        if version.is_closed:
            for kind in _KINDS:
                name = store.name(month, kind, version.version)
                names[kind] += [name] if name not in there else []
        job = Job(document(versions[:end], settings.grace_days), settings.locale, settings.home, ())
        if version is versions[-1] and not _is_there(store, month, there, job):
            for kind in _KINDS:
                names[kind].append(store.name(month, kind))
        if kinds := tuple(kind for kind in _KINDS if names[kind]):
            yield _Missing(replace(job, kinds=kinds), names)


def _is_there(store: Store, month: date, there: set[str], job: Job) -> bool:
    names = {kind: store.name(month, kind) for kind in _KINDS}
    if not there.issuperset(names.values()):
        return False
    return store.read(names["json"]) == replace(job, kinds=("json",)).run()["json"]
