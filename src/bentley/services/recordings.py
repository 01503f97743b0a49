"""Tells recordings apart by their rows, so that bars of two of them never share a database.

A folder's name is not enough: another folder may bear it, and its own files may be replaced. Its
path would be too much: a copy holds the same bars. So an origin is the name with a digest of the
rows, `replay:binance_klines@51a216d5`, given when they are first replayed; rows that are appended
later go on with it, and one changed row makes another origin.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from hashlib import blake2b
from itertools import count
from pathlib import Path

from bentley.domain.errors import ConfigurationError
from bentley.services.exchange.recorded import RecordedMarket

Prints = dict[str, tuple[int, str]]
"""By series (`BTCUSDT-1h`): how many rows were replayed, and the digest of these."""


def origin(
    market: RecordedMarket, symbols: Collection[str], intervals: Collection[str], register: Path
) -> str:
    """Return the origin of a recording, as the file `register` knows it or anew.

    The rows of the series named are written there under it: they are about to be replayed.
    """
    series = {
        f"{symbol}-{interval}": (symbol, interval)
        for symbol in market.symbols()
        for interval in market.intervals(symbol)
    }
    prints = {
        name: market.fingerprint(symbol, interval)
        for name, (symbol, interval) in series.items()
        if symbol in symbols and interval in intervals
    }
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
        name, seen = _new(market.origin, prints, known), {}
    if not prints.items() <= seen.items():
        _write(register, known | {name: seen | prints})
    return name


def _new(name: str, prints: Prints, known: Collection[str]) -> str:
    """Name a recording by its rows, or by the next free name where these had another future."""
    texts = (json.dumps([prints, attempt]) for attempt in count())
    digests = (blake2b(text.encode(), digest_size=4).hexdigest() for text in texts)
    return next(origin for one in digests if (origin := f"{name}@{one}") not in known)


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
    try:
        register.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"{register} can't be written ({error.strerror}); set BENTLEY_HOME to a folder that can"
        )
        raise ConfigurationError(msg) from error
    draft = register.with_name(f".{register.name}.{secrets.token_hex(4)}")
    draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
    draft.replace(register)
