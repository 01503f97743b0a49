"""Ever more history from archives: whether time is linear, and memory bounded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import databases
import harness
import sample
from backfilling import publish
from databases import Database
from harness import Context, Figure, Goal, Ran

MEMORY_MB = 400
MEMORY = Goal(1.0)
LINEAR = Goal(1.25)
_SYMBOL_BARS = 1_700 * 1_440  # before the next symbol begins, for 1m has no more days


def measure(context: Context) -> Iterator[Figure]:
    """Load ten times as many bars at each step, by the command itself in a process of its own."""
    sizes = (10_000, 100_000) if context.quick else (100_000, 1_000_000, 10_000_000)
    with databases.kinds(context) as kinds:
        before: dict[str, tuple[int, float]] = {}  # the step before, and its time a bar
        for size in sizes:
            context.say(f"archives of {size:,} bars")
            place = context.fresh("archives")
            symbols = _publish(place, size)
            for kind in kinds:
                context.say(f"{kind.name}, {size:,} bars")
                served = _server_seconds(kind)
                ran = _load(kind, place, symbols, size)
                each = (ran.cpu_seconds + _server_seconds(kind) - served) / size
                yield from _figures(kind, size, ran, each, before.get(kind.name))
                before[kind.name] = size, each
            shutil.rmtree(place)


def _publish(place: Path, size: int) -> list[str]:
    starts = range(0, size, _SYMBOL_BARS)
    symbols = [f"COIN{number}USDT" for number in range(len(starts))]
    for symbol, start in zip(symbols, starts, strict=True):
        publish(place, sample.bars(min(size - start, _SYMBOL_BARS), symbol))
    return symbols


def _load(kind: Database, place: Path, symbols: list[str], size: int) -> Ran:
    home = kind.context.fresh("home")
    url = {} if kind.server is None else {"BENTLEY_WAREHOUSE_URL": kind.server.database()}
    ran = harness.run(
        harness.python(
            *("-c", "from bentley.cli import main; main()", "backfill", "--json"),
            *("--archive", str(place), "--interval", sample.INTERVAL, "--symbols", *symbols),
        ),
        harness.environment(BENTLEY_HOME=str(home), **url),
        home,
    )
    shutil.rmtree(home)
    if harness.answer(ran)["rows_written"] != size:
        raise AssertionError(ran.output[-500:])
    return ran


def _server_seconds(kind: Database) -> float:
    return 0.0 if kind.server is None else kind.server.cpu_seconds()


def _figures(
    kind: Database, size: int, ran: Ran, each: float, before: tuple[int, float] | None
) -> Iterator[Figure]:
    """Yield the speed, the CPU time a bar beside that of a tenth of the bars, and the memory.

    The first is a wall time and includes the start of the process; the second is the process's
    and the server's together, which other users of the machine change little.
    """
    what = f"{kind.name}: {size:,} bars"
    yield Figure(what=what, unit="bars/s", ours=size / ran.seconds)
    if before is not None:
        fewer, peer = before
        yield Figure(
            what=f"{what}, CPU a bar",
            unit="us",
            ours=each * 1e6,
            peer_name=f"{fewer:,}",
            peer=peer * 1e6,
            ratio=each / peer,
            goal=LINEAR,
        )
    yield Figure(
        what=f"{what}, peak memory",
        unit="MB",
        ours=ran.peak_mb,
        peer_name="bound",
        peer=MEMORY_MB,
        ratio=ran.peak_mb / MEMORY_MB,
        goal=MEMORY,
    )
