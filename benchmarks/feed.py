"""Serves the generated market on a port, as a process beside what is measured."""

from __future__ import annotations

import sys

from sample import SEED, SYMBOLS

from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import serve

if __name__ == "__main__":
    _, port, now = sys.argv
    serve(GeneratedMarket(SEED, SYMBOLS), port=int(port), now=int(now), weight_limit=10**9)
