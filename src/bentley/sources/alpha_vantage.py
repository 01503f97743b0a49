"""Alpha Vantage: daily prices as traded. Its errors come with status 200, as words.

https://www.alphavantage.co/documentation/#daily. The key can only go in the address, and some
answers repeat it: neither is ever shown.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from bentley.domain import sessions
from bentley.domain.errors import ConfigurationError
from bentley.sources.http import Answer, Server
from bentley.sources.source import Fetched, Period, Source, cells, prices, unknown

NAME = "alpha_vantage"

COMPACT_SESSIONS = 100
"""So many sessions, the latest, come in a compact answer; a full one takes a paid key."""

_SERIES = "Time Series (Daily)"
_COLUMNS = {
    "open": "1. open",
    "high": "2. high",
    "low": "3. low",
    "close": "4. close",
    "volume": "5. volume",
}
_WORDS = ("Error Message", "Information", "Note")
_MINUTE_SECONDS = 60.0
_DAY_SECONDS = 86_400.0


def fetch(server: Server, ticker: str, period: Period) -> Fetched:
    """Fetch a ticker's days; see `source.Fetch`.

    Where a key is not good for a longer history, the latest sessions come alone.
    """
    now = int(datetime.now(UTC).timestamp() * 1000)
    reach = sessions.before(sessions.latest(now), COMPACT_SESSIONS - 2)
    series = None if period.first >= reach else _ask(server, ticker, "full")
    if series is not None:
        return _fetched(series, ticker, period)
    series = _ask(server, ticker, "compact") or {}
    found = _fetched(series, ticker, period)
    if len(series) < COMPACT_SESSIONS:  # all there is
        return found
    whole = sessions.start_of(date.fromisoformat(min(series)))
    return found._replace(since=max(period.since, whole))


def _ask(server: Server, ticker: str, size: str) -> dict[str, Any] | None:
    """Ask for the sessions, by day; None where a full answer is not in the key's plan."""
    key = "" if server.key is None else server.key.get_secret_value()
    params = {"function": "TIME_SERIES_DAILY", "symbol": ticker, "outputsize": size}
    answer = server.read("/query", params | {"apikey": key})
    if not isinstance(answer.body, dict):
        raise server.unread(answer)
    if isinstance(answer.body.get(_SERIES), dict):
        found: dict[str, Any] = answer.body[_SERIES]
        return found
    said = next((str(answer.body[word]) for word in _WORDS if answer.body.get(word)), "")
    if size == "full" and _is_premium(said):
        return None
    raise _error(server, ticker, answer, said)


def _is_premium(said: str) -> bool:
    # The texts of a limit, too, offer the premium plans.
    return "premium" in said and not _wait(said)


def _wait(said: str) -> float | None:
    """How long a text about a limit makes one wait, in seconds; None for another text."""
    low = said.lower()
    if "per day" in low and "per minute" not in low and "per second" not in low:
        return _DAY_SECONDS
    if any(words in low for words in ("per minute", "per second", "call frequency")):
        return _MINUTE_SECONDS
    return _DAY_SECONDS if "per day" in low or "rate limit" in low else None


def _error(server: Server, ticker: str, answer: Answer, said: str) -> Exception:
    low = said.lower()
    if (wait := _wait(said)) is not None:
        return server.limited(answer, wait)
    if "apikey" in low or "api key" in low:
        msg = f"{server.what} refuses ALPHA_VANTAGE_API_KEY: {answer.excerpt}"
        return ConfigurationError(msg)
    if "invalid api call" in low:  # so it answers for a symbol that it doesn't know
        return unknown(server, ticker, server.struck(said))
    return server.unread(answer)


def _fetched(series: dict[str, Any], ticker: str, period: Period) -> Fetched:
    rows = (cells(one, _COLUMNS) | {"session": day} for day, one in sorted(series.items()))
    return prices(rows, NAME, ticker, period)


SOURCE = Source(
    name=NAME,
    title="Alpha Vantage",
    kind="prices",
    fetch=fetch,
    url="alpha_vantage_url",
    key="alpha_vantage_api_key",
    calls=1,  # a second; the limit of a day is told by its answers
    seconds=1.2,
)
