"""What a source of stocks is: one that is asked for a ticker and a period, and answers in rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, NamedTuple

import polars as pl
from pydantic import SecretStr

from bentley.domain import stocks
from bentley.domain.errors import RetriableError, UnknownTickerError, described
from bentley.domain.sessions import day_of
from bentley.settings import Settings
from bentley.sources.http import PATIENCE_SECONDS, Server
from bentley.sources.pace import Pace


@dataclass(frozen=True)
class Period:
    """since <= t < until, in UTC milliseconds."""

    since: int
    until: int

    @property
    def first(self) -> date:
        """The first day of it."""
        return day_of(self.since)

    @property
    def last(self) -> date:
        """The last day of it."""
        return day_of(self.until - 1)


class Fetched(NamedTuple):
    """The rows of a period, whole from `since` on: a server may not reach back to its beginning.

    Rows of prices are in `domain.stocks.RAW_SCHEMA`, those of sentiment in
    `domain.sentiment.MESSAGE_SCHEMA`.
    """

    rows: pl.DataFrame
    since: int


Fetch = Callable[[Server, str, Period], Fetched]
"""Fetches a ticker's rows of a period, as they came.

Raises UnknownTickerError, ConfigurationError for a key that is refused, and RetriableError for
what passes, with the wait where one is known.
"""


def prices(
    rows: Iterable[Mapping[str, str | None]], source: str, ticker: str, period: Period
) -> Fetched:
    """Put what a source told of a ticker into its frame: the days of the period alone."""
    named = stocks.frame({**row, "ticker": ticker, "source": source} for row in rows)
    day = pl.col("session").str.to_date("%Y-%m-%d", strict=False)
    outside = (day < period.first) | (day > period.last)
    kept = named.filter(~outside.fill_null(value=False))  # a day that is none is refused later
    return Fetched(kept, period.since)


def unknown(server: Server, ticker: str, said: str = "") -> UnknownTickerError:
    """Make the error for a ticker that a server doesn't know."""
    detail = f" ({server.struck(said)})" if said else ""
    msg = f"{server.what} knows no ticker {ticker}{detail}: mend or remove it in the universe"
    return UnknownTickerError(msg, ticker=ticker)


def cells(one: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str | None]:
    """The cells of a row by our names, each to the digit; `columns` has theirs by ours."""
    return {name: plain(one.get(theirs)) for name, theirs in columns.items()}


def plain(value: Any) -> str | None:
    """A cell of JSON as text, to the digit; null stays null."""
    return None if value is None else str(value)


def _bare(key: str) -> Mapping[str, str]:  # noqa: ARG001 - others need it
    return {}


@dataclass(frozen=True)
class Source:
    """A source as it is listed: its names, where its address and key are set, and its limit.

    `url` and `key` name fields of Settings. Its free plan takes `calls` requests in any `seconds`;
    BENTLEY_RATE_LIMITS says what a paid one takes.
    `headers` makes the headers of each request from the key. `refusals` are the words, in lower
    case, of a 403 that means the key; any other is about what its plan allows.
    """

    name: str
    title: str
    kind: Literal["prices", "sentiment"]
    fetch: Fetch
    url: str
    key: str | None
    calls: int
    seconds: float
    headers: Callable[[str], Mapping[str, str]] = _bare
    refusals: tuple[str, ...] = ()

    def missing(self, settings: Settings) -> str | None:
        """Say why it can't be asked; None where it can."""
        if self.key is None or getattr(settings, self.key) is not None:
            return None
        return f"{self.key.upper()} is not set"

    def server(self, settings: Settings) -> Server:
        """Its server, with the key and the limit that all processes of this home share."""
        calls, seconds = settings.rate_limits.get(self.name, (self.calls, self.seconds))
        key: SecretStr | None = None if self.key is None else getattr(settings, self.key)
        return Server(
            what=self.title,
            setting=f"BENTLEY_{self.url.upper()}",
            base=getattr(settings, self.url),
            key=key,
            headers=self.headers("" if key is None else key.get_secret_value()),
            patience=PATIENCE_SECONDS,
            wait=max(seconds, self.seconds),  # a plan says what is let in, not how long it is shut
            pace=Pace(settings.home / "pace" / f"{self.name}.json", calls, seconds),
            refusals=self.refusals,
        )

    def pull(self, settings: Settings, ticker: str, period: Period) -> Fetched:
        """Fetch a ticker's rows of a period; raises what `Fetch` raises.

        An answer of another shape than is documented is a RetriableError that names what it lacks.
        """
        server = self.server(settings)
        try:
            return self.fetch(server, ticker, period)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            msg = (
                f"{self.title} answered for {ticker} in another form than it documents: "
                f"{server.struck(described(error))}"
            )
            raise RetriableError(msg) from None
