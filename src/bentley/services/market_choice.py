"""Which exchange a run talks to: the real one, a replay, or generated bars where none answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bentley.domain.addresses import without_password
from bentley.domain.clock import iso
from bentley.domain.errors import BentleyError, ConfigurationError
from bentley.settings import Settings
from bentley.sources import exchange

GENERATED_SEED = 7


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
        now = exchange.server_time(settings.exchange_url, attempts=2)
    except BentleyError as error:  # a captive portal's page is no exchange either
        if "exchange_url" in settings.model_fields_set:
            raise
        with _generated(settings, str(error)) as choice:
            yield choice
    else:
        where = without_password(settings.exchange_url)
        if settings.since is not None and settings.since >= now:
            msg = f"--since {iso(settings.since)} lies in the future: at {where} it is {iso(now)}"
            raise ConfigurationError(msg)
        yield Choice(settings, f"The exchange is {where}.")


@contextmanager
def _replayed(settings: Settings, folder: Path) -> Iterator[Choice]:
    # These take a third of a second to import, and a run against the real exchange needs none.
    from bentley.services import recordings  # noqa: PLC0415
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
    recorded = [symbol for symbol in known if {*market.intervals(symbol)} & {*settings.intervals}]
    if not recorded:
        there = sorted({interval for symbol in known for interval in market.intervals(symbol)})
        msg = (
            f"{folder} records {', '.join(known)} not at {', '.join(settings.intervals)} but at "
            f"{', '.join(there)}: choose among these with --interval"
        )
        raise ConfigurationError(msg)
    first = market.first_open(recorded, settings.intervals)
    end = market.last_close(recorded, settings.intervals) + 1
    _check_range(settings, first, end, f"{folder} records {', '.join(recorded)}")
    origin = recordings.origin(
        market, recorded, settings.intervals, settings.home / "replay" / "origins.json"
    )
    now = end if settings.until is None else min(end, settings.until)
    with ExchangeServer(market, now=now) as server:
        changed = settings.model_copy(
            update={
                "exchange_url": server.url,
                "origin": origin,
                "since": first if settings.since is None else settings.since,
            }
        )
        yield Choice(changed, f"Replaying the bars recorded in {folder}: not the live market.")


def _check_range(settings: Settings, first: int, end: int, who: str) -> None:
    """Refuse at once what could only fail later: a range in which there can't be a bar."""
    for name, time, outside in (
        ("--since", settings.since, settings.since is not None and settings.since >= end),
        ("--until", settings.until, settings.until is not None and settings.until <= first),
    ):
        if outside:
            msg = f"{name} {iso(time)} leaves nothing: {who} from {iso(first)} to {iso(end)}"
            raise ConfigurationError(msg)


@contextmanager
def _generated(settings: Settings, reason: str) -> Iterator[Choice]:
    from bentley.services.exchange.clock import wall_millis  # noqa: PLC0415
    from bentley.services.exchange.generated import LISTED, GeneratedMarket  # noqa: PLC0415
    from bentley.services.exchange.server import ExchangeServer  # noqa: PLC0415

    market = GeneratedMarket(GENERATED_SEED, settings.symbols)
    now = wall_millis()
    _check_range(settings, LISTED, now, f"{reason}, and generated bars run")
    past = settings.until if settings.until is not None and settings.until < now else None
    with ExchangeServer(market, now=past) as server:
        changed = settings.model_copy(update={"exchange_url": server.url, "origin": server.origin})
        notice = f"{reason}. Running on GENERATED bars instead: they are no market's."
        yield Choice(changed, notice)
