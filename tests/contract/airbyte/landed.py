"""What a destination writes at the end of a job: all bars that an exchange shows by then."""

from __future__ import annotations

from bentley.domain.bars import FIELDS
from bentley.warehouse.warehouse import Warehouse
from unit.stages.landing_support import land, make


class Destination:
    """A landing table in a warehouse of its own opening, filled from an exchange's market."""

    def __init__(self, settings, exchange) -> None:
        self.settings = settings
        self.exchange = exchange
        with Warehouse.open(settings) as warehouse:
            make(warehouse, answered=True)

    def rows(self) -> list[dict[str, str]]:
        """Every wanted bar from `since` on, the forming one too, as of the exchange's now."""
        now = self.exchange.now
        return [
            dict(zip(FIELDS, map(str, (symbol, interval, *row)), strict=False))
            for symbol in self.settings.symbols
            for interval in self.settings.intervals
            for row in self.exchange.exchange.market.klines(
                symbol, interval, self.settings.since, now, 100_000, now
            )
        ]

    def fill(self) -> None:
        """Write them, extracted now."""
        with Warehouse.open(self.settings) as warehouse:
            now = self.exchange.now
            land(warehouse, self.rows(), at=now, answered=now)
