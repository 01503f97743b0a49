"""What a market is to the exchange: the one interface that recorded and generated bars share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

CELLS = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "trades",
    "taker_buy_base_volume",
    "taker_buy_quote_volume",
    "ignore",
)
"""A kline's twelve cells in the exchange's order, by Bentley's own column names."""

OPEN_TIME = CELLS.index("open_time")
CLOSE_TIME = CELLS.index("close_time")

DEFAULT_LIMIT = 500
MAX_LIMIT = 1000

Row = tuple[Any, ...]
"""Twelve cells: times (UTC milliseconds) and trades are integers, all else text."""

_QUOTES = (
    *("USDT", "FDUSD", "USDC", "BUSD", "TUSD", "USDP", "USD", "DAI"),
    *("BTC", "ETH", "BNB", "EUR", "TRY", "BRL", "GBP", "AUD", "JPY", "RUB", "TRX", "XRP"),
)


class Listing(NamedTuple):
    """A symbol as exchangeInfo names it; `status` is TRADING or BREAK."""

    symbol: str
    base: str
    quote: str
    status: str


class Market(Protocol):
    """Bars by symbol and interval, as they could be seen at a given time."""

    @property
    def origin(self) -> str:
        """Where the bars come from, like `replay:binance_klines` or `generated:7`."""

    def symbols(self) -> tuple[str, ...]:
        """Every symbol served, in alphabetical order."""

    def intervals(self, symbol: str) -> tuple[str, ...]:
        """The intervals served for `symbol`, the shortest first."""

    def trading(self, symbol: str, now: int) -> bool:
        """Whether `symbol` still trades at `now` (UTC milliseconds)."""

    def klines(  # noqa: PLR0917 a request's parameters, and the time
        self,
        symbol: str,
        interval: str,
        start: int | None,
        end: int | None,
        limit: int,
        now: int,
    ) -> list[Row]:
        """Rows with start <= open_time <= end, in order, as seen at `now`.

        From `start` where it is given, else the last `limit` of them. Nothing in them was
        unknown at `now`: a candle that is still forming is built from what had happened.
        """

    def last_close(
        self, symbols: Collection[str] | None = None, intervals: Sequence[str] | None = None
    ) -> int | None:
        """The last close time in UTC milliseconds, over all or the named; None if time goes on."""


def assets(symbol: str) -> tuple[str, str]:
    """Part a symbol into its base and quote asset: `BTCUSDT` into `BTC` and `USDT`."""
    for quote in _QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol.removesuffix(quote), quote
    return symbol, ""


def listing(market: Market, symbol: str, now: int) -> Listing:
    """`symbol` as exchangeInfo shows it at `now` (UTC milliseconds)."""
    status = "TRADING" if market.trading(symbol, now) else "BREAK"
    return Listing(symbol, *assets(symbol), status)
