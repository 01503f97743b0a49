"""The recorded stocks as a source would tell them: raw prices, events, adjusted prices."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

import polars as pl

from bentley.domain import stocks

PRICES = ("open", "high", "low", "close")


def row(session, close="100", *, dividend="0", split="1", adj=None, adj_volume="1000"):
    """A day as a history has it; its adjusted cells are the raw ones unless given."""
    prices = dict.fromkeys(PRICES, close)
    adjusted = dict.fromkeys((f"adj_{name}" for name in PRICES), adj or close)
    events = {"div_cash": dividend, "split_factor": split}
    return (
        {"session": session, "volume": "1000", "adj_volume": adj_volume}
        | prices
        | adjusted
        | events
    )


@dataclass(frozen=True)
class Factor:
    """A line of a factor file: it holds up to and including its day."""

    day: date
    price: Decimal
    split: Decimal
    reference: Decimal


def factors(recorded: Path, ticker: str) -> list[Factor]:
    lines = (recorded / "stocks" / "factor_files" / f"{ticker}.csv").read_text().split()
    return [
        Factor(_day(day), Decimal(price), Decimal(split), Decimal(reference))
        for day, price, split, reference in csv.reader(lines)
    ]


def _day(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))


def raw(recorded: Path, ticker: str) -> list[tuple[date, list[Decimal], str]]:
    """Each session's day, its four prices, and its volume."""
    with zipfile.ZipFile(recorded / "stocks" / "daily" / f"{ticker}.zip") as archive:
        text = archive.read(f"{ticker}.csv").decode()
    return [
        (_day(when), [Decimal(price) / 10_000 for price in prices], volume)
        for when, *prices, volume in csv.reader(io.StringIO(text))
    ]


def history(recorded: Path, ticker: str) -> list[dict[str, str]]:
    """A ticker's whole history, with the events that its factor file tells, in RAW_SCHEMA's names.

    The adjusted prices are the raw ones times the file's factors.
    """
    known = factors(recorded, ticker)
    rows, at = [], 0
    previous = None
    for day, prices, volume in raw(recorded, ticker):
        while known[at].day < day:
            at += 1
        now = known[at]
        dividend, split = Decimal(0), Decimal(1)
        if previous is not None and previous is not now:
            split = _nearest(now.split / previous.split)
            # The file's reference price is the close of its day, the one before the ex-day.
            dividend = previous.reference / split * (1 - previous.price / now.price)
        previous = now
        times = now.price * now.split
        told = {name: f"{price:f}" for name, price in zip(PRICES, prices, strict=True)}
        told |= {
            f"adj_{name}": f"{price * times:.14f}"
            for name, price in zip(PRICES, prices, strict=True)
        }
        rows.append(
            told
            | {
                "ticker": ticker.upper(),
                "session": day.isoformat(),
                "volume": volume,
                "adj_volume": f"{Decimal(volume) / now.split:.0f}",
                "div_cash": f"{dividend:.14f}",
                "split_factor": f"{split:f}",
            }
        )
    return rows


def _nearest(ratio: Decimal) -> Decimal:
    """The split behind a ratio of factors with eight decimals: 4, 1.5, or 0.1 and the like."""
    whole = ratio.quantize(Decimal("0.001"))
    return whole.normalize() if abs(ratio - whole) < Decimal("0.001") else ratio


def frame(rows: list[dict[str, str]], source: str) -> pl.DataFrame:
    return stocks.frame([row | {"source": source} for row in rows])
