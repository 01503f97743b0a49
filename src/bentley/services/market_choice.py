"""Which exchange a run talks to: the real one, a replay, or generated bars where none answers."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bentley.domain.errors import BentleyError, ConfigurationError
from bentley.settings import Settings
from bentley.sources import exchange
from bentley.warehouse.warehouse import OriginError, Warehouse

GENERATED_SEED = 7
_LATEST = 2**62


@dataclass(frozen=True)
class Choice:
    """The settings a run goes on with, and what to tell its user about the exchange."""

    settings: Settings
    notice: str


@contextmanager
def chosen(settings: Settings, replay: Path | None) -> Iterator[Choice]:
    """Choose the exchange, and serve it on loopback while the context lasts if it is a replay.

    Raises ConfigurationError for a folder that can't be replayed or lacks every symbol, and
    RetriableError for an exchange that was named by a setting and doesn't answer.
    """
    if replay is not None:
        with _replayed(settings, replay) as choice:
            yield choice
        return
    try:
        exchange.server_time(settings.exchange_url, attempts=2)
    except BentleyError as error:  # a captive portal's page is no exchange either
        if "exchange_url" in settings.model_fields_set:
            raise
        with _generated(settings, str(error)) as choice:
            yield choice
    else:
        yield Choice(settings, f"The exchange is {settings.exchange_url}.")


@contextmanager
def _replayed(settings: Settings, folder: Path) -> Iterator[Choice]:
    # These take a third of a second to import, and a run against the real exchange needs none.
    from bentley.services.exchange.recorded import RecordedMarket  # noqa: PLC0415
    from bentley.services.exchange.server import ExchangeServer  # noqa: PLC0415

    market = RecordedMarket(folder)
    known = [symbol for symbol in settings.symbols if symbol in market.symbols()]
    if not known:
        msg = (
            f"{folder} records none of {', '.join(settings.symbols)}; it has "
            f"{', '.join(market.symbols())}: choose among these with --symbols"
        )
        raise ConfigurationError(msg)
    last = market.last_close(known, settings.intervals)
    if last is None:
        there = sorted({interval for symbol in known for interval in market.intervals(symbol)})
        msg = (
            f"{folder} records {', '.join(known)} not at {', '.join(settings.intervals)} but at "
            f"{', '.join(there)}: choose among these with --interval"
        )
        raise ConfigurationError(msg)
    now = last + 1 if settings.until is None else min(last + 1, settings.until)
    first = min(
        int(rows[0][0])
        for symbol in known
        for interval in settings.intervals
        if (rows := market.klines(symbol, interval, 0, _LATEST, 1, now))
    )
    with ExchangeServer(market, now=now) as server:
        changed = settings.model_copy(
            update={
                "exchange_url": server.url,
                "origin": server.origin,
                "since": first if settings.since is None else settings.since,
            }
        )
        make_room(changed)
        yield Choice(changed, f"Replaying the bars recorded in {folder}: not the live market.")


@contextmanager
def _generated(settings: Settings, reason: str) -> Iterator[Choice]:
    from bentley.services.exchange.generated import GeneratedMarket  # noqa: PLC0415
    from bentley.services.exchange.server import ExchangeServer  # noqa: PLC0415

    market = GeneratedMarket(GENERATED_SEED, settings.symbols)
    with ExchangeServer(market, now=settings.until) as server:
        changed = settings.model_copy(update={"exchange_url": server.url, "origin": server.origin})
        make_room(changed)
        notice = f"{reason}. Running on GENERATED bars instead: they are no market's."
        yield Choice(changed, notice)


def make_room(settings: Settings) -> None:
    """Set a replay's SQLite warehouse aside when it holds bars of another replay.

    Each origin's bars come back when it is replayed again.
    """
    try:
        Warehouse.open(settings).close()
    except OriginError as error:
        if settings.warehouse_url is not None:
            raise
        path = settings.data_home / "mansa_bot.db"
        aside = _aside(path, error.holds)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.replace(aside)
        for suffix in ("-wal", "-shm"):  # empty by now
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        former = _aside(path, error.wanted)
        if former.exists():  # this origin was here before: go on where it stood
            former.replace(path)
        Warehouse.open(settings).close()


def _aside(path: Path, origin: str) -> Path:
    """Where the bars of an origin wait while another's are in use."""
    return path.with_name(f"mansa_bot.{re.sub(r'[^A-Za-z0-9._-]', '-', origin)}.db")
