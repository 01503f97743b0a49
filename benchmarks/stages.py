"""Each stage as its command, in a process of its own: time and memory by the number of bars.

What is compared is the CPU time of the process tree: it holds all the work, the database of
a SQLite warehouse included, and other users of the machine change it little.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import harness
import sample
import services
from harness import Context, Figure, Goal, Ran

from bentley.airbyte import protocol
from bentley.settings import Settings, load
from bentley.stages.ingest import STREAM
from bentley.stages.layout import CONNECTOR

GOAL = Goal(1.2)
STAGES = ("sync", "process", "track")
NEWS = 60
"""Bars that the next run finds beside the history."""

_DAY = 86_400_000
_START = "from bentley.cli import main; main()"


@dataclass(frozen=True)
class Plan:
    """Sizes in bars, and how often each is run."""

    repeats: dict[int, int]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Small, middle and large."""
        small, middle, large = sorted(self.repeats)
        return small, middle, large


FULL = Plan({1_000: 3, 100_000: 3, 1_000_000: 1})
QUICK = Plan({1_000: 1, 10_000: 1, 50_000: 1})


@dataclass
class Found:
    """What was measured: by stage and bars, of the whole history and of a run beside it."""

    whole: defaultdict[tuple[str, int], list[Ran]] = field(
        default_factory=lambda: defaultdict(list)
    )
    beside: defaultdict[tuple[str, int], list[Ran]] = field(
        default_factory=lambda: defaultdict(list)
    )


def measure(context: Context) -> Iterator[Figure]:
    """Take bars of one symbol at 1m through the chain, then a few more beside them.

    One symbol, so that the middle size fills every chunk that the stages cut a series into:
    what memory grows by from there is owed to history.
    """
    plan = QUICK if context.quick else FULL
    found = Found()
    end = sample.START + 800 * _DAY
    servers = context.fresh("servers")
    with services.exchange(servers, end) as exchange, services.mlflow(servers) as mlflow:
        for turn in range(max(plan.repeats.values())):
            for size, repeats in plan.repeats.items():
                if turn < repeats:
                    _chain(context, found, size, exchange, mlflow)
        _, middle, _ = plan.sizes
        context.say(f"the connector kit alone: {middle:,} bars")
        kit = [_kit(context, middle, exchange) for _ in range(plan.repeats[middle])]
    for stage in STAGES:
        yield from _figures(stage, found, plan)
    whole = _cpu(found.whole["sync", middle])
    yield Figure(
        what=f"sync: CPU of {middle:,} bars",
        unit="s",
        ours=whole,
        peer_name="the kit alone",
        peer=_cpu(kit),
        ratio=whole / _cpu(kit),
        runs=len(kit),
    )


def _kit(context: Context, size: int, exchange: str) -> Ran:
    """Let the connector read the same bars as its kit alone does, into a file."""
    folder = context.fresh("kit")
    files = {
        "config": {
            "base_url": exchange,
            "symbols": list(sample.SYMBOLS[:1]),
            "intervals": [sample.INTERVAL],
            "start_time": sample.START,
            "end_time": sample.START + size * sample.MINUTE,
            "lookback_bars": 0,
        },
        "catalog": protocol.configured_catalog(protocol.incremental_catalog([STREAM]), [STREAM])[0],
    }
    arguments = []
    for name, content in files.items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps(content))
        arguments += [f"--{name}", str(file)]
    kit = ("-m", "bentley.airbyte.kit", str(CONNECTOR), "read")
    ran = harness.run(harness.python(*kit, *arguments), harness.environment(), folder)
    if ran.output.count('"RECORD"') < size * 0.9:
        raise AssertionError(ran.output[-500:])
    return ran


def _chain(context: Context, found: Found, size: int, exchange: str, mlflow: str) -> None:
    home = context.fresh("home")
    for news, into in ((0, found.whole), (NEWS, found.beside)):
        settings = _settings(home, size + news, exchange, mlflow)
        for stage in STAGES:
            context.say(f"{stage}: {f'{news} beside ' if news else ''}{size:,} bars")
            into[stage, size].append(_stage(stage, settings, context.folder))


def _settings(home: Path, size: int, exchange: str, mlflow: str) -> Settings:
    """Read `size` minutes, which are as many bars but for the exchange's outages."""
    return load(
        home=home,
        exchange_url=exchange,
        mlflow_tracking_uri=mlflow,
        symbols=sample.SYMBOLS[:1],
        intervals=(sample.INTERVAL,),
        since=sample.START,
        until=sample.START + size * sample.MINUTE,
    )


def _stage(stage: str, settings: Settings, folder: Path) -> Ran:
    env = harness.environment(**settings.environment())
    ran = harness.run(harness.python("-c", _START, stage, "--json"), env, folder)
    report = json.loads(ran.output)
    if report["status"] != "committed":
        msg = f"{stage} ended as {report['status']}"
        raise AssertionError(msg)
    return ran


def _figures(stage: str, found: Found, plan: Plan) -> Iterator[Figure]:
    small, middle, large = plan.sizes
    for size in plan.sizes:
        runs = found.whole[stage, size]
        name = f"{stage} {size:,}: time"
        yield Figure(name, "s", _seconds(runs), "CPU", _cpu(runs), runs=len(runs))
        yield Figure(f"{stage} {size:,}: memory", "MB", _peak(runs), runs=len(runs))
    spent = [_cpu(found.whole[stage, size]) for size in plan.sizes]
    line = max(
        spent[0] + (spent[1] - spent[0]) * (large - small) / (middle - small),
        spent[1],
    )
    yield Figure(
        what=f"{stage}: linear in bars, by CPU",
        unit="s",
        ours=spent[2],
        peer_name=f"line of {small:,} and {middle:,}",
        peer=line,
        ratio=spent[2] / line,
        goal=GOAL,
        runs=plan.repeats[large],
    )
    yield _compared(f"{stage}: memory", "MB", found.whole, stage, (large, middle))
    yield _compared(f"{stage}: memory of {NEWS} more", "MB", found.beside, stage, (large, small))
    yield _compared(f"{stage}: CPU of {NEWS} more", "s", found.beside, stage, (large, small))


def _compared(
    what: str,
    unit: str,
    found: dict[tuple[str, int], list[Ran]],
    stage: str,
    sizes: tuple[int, int],
) -> Figure:
    measured = _peak if unit == "MB" else _cpu
    large, small = (found[stage, size] for size in sizes)
    return Figure(
        what=f"{what}, on {sizes[0]:,}",
        unit=unit,
        ours=measured(large),
        peer_name=f"on {sizes[1]:,}",
        peer=measured(small),
        ratio=measured(large) / measured(small),
        goal=GOAL,
        runs=len(large),
    )


def _seconds(runs: list[Ran]) -> float:
    return statistics.median(run.seconds for run in runs)


def _cpu(runs: list[Ran]) -> float:
    return statistics.median(run.cpu_seconds for run in runs)


def _peak(runs: list[Ran]) -> float:
    return statistics.median(run.peak_mb for run in runs)
