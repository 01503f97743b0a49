"""Tells recordings apart by their rows, so that bars of two of them never share a database.

A folder's name is not enough: another folder may bear it, and its own files may be replaced. Its
path would be too much: a copy holds the same bars. So an origin is the name with a digest of the
rows, `replay:binance_klines@560a63b9`, given when they are first replayed; rows that are appended
later go on with it, and one changed row makes another origin.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from hashlib import blake2b
from pathlib import Path

from bentley.services.exchange.recorded import RecordedMarket

Prints = dict[str, tuple[int, str]]
"""By series (`BTCUSDT-1h`): how many rows were replayed, and the digest of these."""


def origin(
    market: RecordedMarket, symbols: Collection[str], intervals: Collection[str], register: Path
) -> str:
    """Return the origin of these series of a recording, as the file `register` knows it or anew.

    Every origin that is handed out is written there, with the rows that it stands for.
    """
    series = {
        f"{symbol}-{interval}": (symbol, interval)
        for symbol in sorted(symbols)
        for interval in market.intervals(symbol)
        if interval in intervals
    }
    prints = {name: market.fingerprint(*key) for name, key in series.items()}
    known = _read(register)
    for name, seen in known.items():
        shared = seen.keys() & series.keys()
        if (
            name.startswith(f"{market.origin}@")
            and shared
            and all(market.fingerprint(*series[one], seen[one][0]) == seen[one] for one in shared)
        ):
            break
    else:
        digest = blake2b(json.dumps(prints).encode(), digest_size=4).hexdigest()
        name, seen = f"{market.origin}@{digest}", {}
    if not prints.items() <= seen.items():
        _write(register, known | {name: seen | prints})
    return name


def _read(register: Path) -> dict[str, Prints]:
    """Read what is known; a file that is lost or broken only costs fetching the bars again."""
    try:
        found = json.loads(register.read_text(encoding="utf-8"))
        return {
            name: {one: (int(rows), str(digest)) for one, (rows, digest) in prints.items()}
            for name, prints in found.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(register: Path, known: dict[str, Prints]) -> None:
    """Write whole or not at all: a run that is refused a moment later may write here too."""
    register.parent.mkdir(parents=True, exist_ok=True)
    draft = register.with_name(f".{register.name}.{secrets.token_hex(4)}")
    draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
    draft.replace(register)
