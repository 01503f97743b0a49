"""Yahoo's chart API: daily prices, dividends and splits. It is not official, so it comes last.

Its prices are divided by every later split, its dividends, too: both are multiplied back here,
so that what is stored is what was paid on the day. Answers are asked for up to today, for the
splits to come are in them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from bentley.sources.http import Answer, Server
from bentley.sources.source import Fetched, Period, Source, plain, prices, unknown

NAME = "yahoo"

_PRICES = ("open", "high", "low", "close")
_UNKNOWN = 404
_MINUTE_SECONDS = 60.0


def fetch(server: Server, ticker: str, period: Period) -> Fetched:
    """Fetch a ticker's days; see `source.Fetch`."""
    now = int(datetime.now(UTC).timestamp())
    # Yahoo writes classes of shares with a dash.
    answer = server.read(
        f"/v8/finance/chart/{ticker.replace('.', '-')}",
        {
            "interval": "1d",
            "period1": str(period.since // 1000),
            "period2": str(max(now, period.until // 1000)),
            "events": "div,splits",
            "includeAdjustedClose": "true",
        },
    )
    result = _result(server, ticker, answer)
    zone = ZoneInfo(str(result.get("meta", {}).get("exchangeTimezoneName", "America/New_York")))
    return prices(_rows(result, zone), NAME, ticker, period)


def _result(server: Server, ticker: str, answer: Answer) -> dict[str, Any]:
    chart = answer.body.get("chart") if isinstance(answer.body, dict) else None
    if not isinstance(chart, dict):
        if "Too Many Requests" in answer.excerpt:  # also with status 200
            raise server.limited(answer, _MINUTE_SECONDS)
        raise server.unread(answer)
    error = chart.get("error") or {}
    if answer.status == _UNKNOWN or error.get("code") == "Not Found":
        raise unknown(server, ticker, str(error.get("description") or answer.excerpt))
    if "Data doesn't exist" in str(error.get("description")):
        return {}  # nothing was traded in the period
    if error or not chart.get("result"):
        raise server.unread(answer)
    found: dict[str, Any] = chart["result"][0]
    return found


def _rows(result: dict[str, Any], zone: ZoneInfo) -> list[dict[str, str | None]]:
    quote = (result.get("indicators", {}).get("quote") or [{}])[0]
    adjusted = (result.get("indicators", {}).get("adjclose") or [{}])[0].get("adjclose") or []
    events = result.get("events") or {}
    splits = {
        _day(one["date"], zone): Decimal(one["numerator"]) / Decimal(one["denominator"])
        for one in (events.get("splits") or {}).values()
    }
    paid: dict[str, Decimal] = {}
    for one in (events.get("dividends") or {}).values():
        day = _day(one["date"], zone)
        paid[day] = paid.get(day, Decimal(0)) + Decimal(one["amount"])
    rows = []
    for at, moment in enumerate(result.get("timestamp") or ()):
        cells = {name: _cell(quote.get(name), at) for name in (*_PRICES, "volume")}
        if not any(cells.values()):  # no trade: Yahoo fills its grid with nulls
            continue
        day = _day(moment, zone)
        later = Decimal(1)
        for when, split in splits.items():
            later *= split if when > day else 1
        rows.append(
            {name: _times(cells[name], later) for name in _PRICES}
            | {
                "session": day,
                "volume": _times(cells["volume"], 1 / later),
                "adj_close": _cell(adjusted, at),
                "div_cash": f"{_rounded(paid.get(day, Decimal(0)) * later):f}",
                "split_factor": f"{_rounded(splits.get(day, Decimal(1))):f}",
            }
        )
    return rows


def _day(moment: str, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(int(moment), tz=zone).date().isoformat()


def _cell(column: list[Any] | None, at: int) -> str | None:
    return plain(column[at]) if column is not None and at < len(column) else None


def _times(cell: str | None, factor: Decimal) -> str | None:
    """Multiply a cell back; one that is no number stays as it is, to be refused as such."""
    if cell is None or factor == 1:
        return cell
    try:
        return f"{_rounded(Decimal(cell) * factor):f}"
    except InvalidOperation:
        return cell


def _rounded(number: Decimal) -> Decimal:
    """Cut off what a quotient of decimals has behind the column's last place."""
    return round(number, 18)


SOURCE = Source(
    name=NAME,
    title="Yahoo",
    kind="prices",
    fetch=fetch,
    url="yahoo_url",
    key=None,
    calls=60,  # a minute; Yahoo names no limit
    seconds=60.0,
    # It refuses clients that don't look like a browser.
    headers=lambda _key: {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) bentley"},
)
