"""Which archives a backfill reads: those of the wanted time that the table doesn't hold yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bentley.domain.errors import DataError
from bentley.settings import Settings
from bentley.sources.archives import Archive, Archives, day_of, months
from bentley.stages import ahead
from bentley.stages.reading import Series
from bentley.warehouse import gaps, states
from bentley.warehouse.warehouse import Warehouse

SOURCE = "binance-archives"
"""Whose rows and states these are."""

_ASKED_AHEAD = 4


@dataclass(frozen=True)
class Task:
    """One archive: `whole` when all of it is wanted, `known` when the table holds it already.

    One that is `passed` is not looked into, whatever the table holds.
    """

    archive: Archive
    digest: str
    whole: bool
    known: bool
    passed: bool


@dataclass(frozen=True)
class Plan:
    """The archives of all series, each series in the order of time, and what is in the way."""

    tasks: list[Task] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)


def state_name(archive: Archive) -> str:
    """Under which name it is kept that an archive has been read."""
    return f"{archive.symbol}/{archive.interval}/{archive.label}"


def failure(symbol: str, interval: str, message: str) -> dict[str, str]:
    """Say of a series what went wrong."""
    return {"symbol": symbol, "interval": interval, "message": message}


def plan(
    settings: Settings,
    warehouse: Warehouse,
    place: Archives,
    wanted: Sequence[Series],
    *,
    repair: bool,
) -> Plan:
    """Look through a place for the wanted series; with `repair` for their recorded gaps alone."""
    made = Plan()
    for series in sorted(wanted):  # the order of the table's key
        with warehouse.reading() as connection:
            loaded = states.under(connection, SOURCE, f"{'/'.join(series)}/")
            missing = gaps.of_series(connection, *series)
        count, failed = len(made.tasks), len(made.failures)
        for archive, digest in _there(settings, place, series, made.failures):
            lies_in_gap = any(
                gap.first_open < archive.end and gap.end > archive.start for gap in missing
            )
            made.tasks.append(
                Task(
                    archive,
                    digest,
                    whole=_wants(settings, archive.start) and _wants(settings, archive.end - 1),
                    known=loaded.get(state_name(archive)) == {"sha256": digest},
                    passed=repair and not lies_in_gap,
                )
            )
        if len(made.tasks) == count and len(made.failures) == failed:
            said = f"no archive of {' '.join(series)} lies at {settings.archive} in the wanted time"
            made.failures.append(failure(*series, said))
    return made


def _wants(settings: Settings, opened: int) -> bool:
    since, until = settings.since, settings.until
    return (since is None or opened >= since) and (until is None or opened < until)


def _there(
    settings: Settings, place: Archives, series: Series, failures: list[dict[str, str]]
) -> Iterator[tuple[Archive, str]]:
    """Find the archives of a series: the months', and the days' of months that have none."""
    extent = place.extent(*series)
    if extent is None:
        return
    since, until = settings.since, settings.until
    first = extent[0] if since is None else max(extent[0], day_of(since))
    last = extent[1] if until is None else min(extent[1], day_of(until - 1))
    for month, digest in _digests(place, list(months(*series, first, last)), failures):
        if digest is not None:
            yield month, digest
        elif place.has_days(month):
            days = [day for day in month.days() if first <= day.first <= last]
            for day, found in _digests(place, days, failures):
                if found is not None:
                    yield day, found


def _digests(
    place: Archives, wanted: Sequence[Archive], failures: list[dict[str, str]]
) -> Iterator[tuple[Archive, str | None]]:
    def ask(archive: Archive) -> str | DataError | None:
        try:
            return place.digest(archive)
        except DataError as error:
            return error

    answers = ahead.mapped(ask, wanted, threads=_ASKED_AHEAD)
    for archive, answer in zip(wanted, answers, strict=True):
        if isinstance(answer, DataError):
            failures.append(failure(archive.symbol, archive.interval, str(answer)))
        else:
            yield archive, answer
