"""How a comparison is made: ways alternate A B A B, medians part them, trees are watched."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_LOOK_SECONDS = 0.03
_TAIL_BYTES = 3_000

Say = Callable[[str], None]
Way = Callable[[], float]
"""Does the work once and returns what it measured of it, in seconds."""


@dataclass(frozen=True)
class Goal:
    """A bound on a ratio."""

    bound: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def held(self, ratio: float) -> bool:
        """Whether `ratio` keeps the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound


@dataclass(frozen=True)
class Figure:
    """One line of the result: ours, what stands beside it, their ratio, and the goal.

    `unit` is of `ours` and `peer` alike; without a peer the figure stands for itself.
    """

    what: str
    unit: str
    ours: float
    peer_name: str = ""
    peer: float | None = None
    ratio: float | None = None
    goal: Goal | None = None
    runs: int = 1

    @property
    def held(self) -> bool | None:
        """Whether the goal was met; None where there is none."""
        if self.goal is None or self.ratio is None:
            return None
        return self.goal.held(self.ratio)

    def to_dict(self) -> dict[str, Any]:
        """Make plain values for JSON."""
        return (
            vars(self)
            | {"goal": None if self.goal is None else str(self.goal)}
            | {"held": self.held}
        )


@dataclass(frozen=True)
class Context:
    """What every subject gets: how much to do, where to say what it does, a place for files."""

    quick: bool
    say: Say
    folder: Path

    def fresh(self, name: str) -> Path:
        """Make an empty folder that goes with the run."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))


def alternate(ways: Mapping[str, Way], repeats: int, say: Say) -> dict[str, float]:
    """Run the ways in turn, `repeats` times each, and return the median seconds of each.

    Turns cancel what the machine does beside: a slow minute strikes all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name, way in ways.items():
            say(f"{turn + 1} of {repeats}: {name}")
            found[name].append(way())
    return {name: statistics.median(times) for name, times in found.items()}


@dataclass(frozen=True)
class Ran:
    """A child process that came to its end: its time, its tree's CPU and peak memory, its answer."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


class ChildError(RuntimeError):
    """A child process failed; the message ends with its last words."""


def run(argv: Sequence[str], env: Mapping[str, str], folder: Path) -> Ran:
    """Run a command to its end and watch its whole tree.

    The time of processes that the command waited for counts as its own. The peak is the largest sum of resident sets seen, at a look every 30 ms: pages that
    processes share count in each of them. Raises ChildError for an exit code other than 0.
    """
    with (
        tempfile.TemporaryFile(dir=folder) as out,
        tempfile.TemporaryFile(dir=folder) as err,
    ):
        before = _cpu_of_children()
        start = time.perf_counter()
        child = subprocess.Popen(
            list(argv), env=dict(env), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        peak = _watch(child)
        seconds = time.perf_counter() - start
        cpu = _cpu_of_children() - before
        for stream in (out, err):
            stream.seek(0)
        output, errors = out.read().decode(), err.read().decode(errors="replace")
    if child.returncode:
        words = (errors or output)[-_TAIL_BYTES:]
        msg = f"{' '.join(argv[:6])} ended with exit code {child.returncode}:\n{words}"
        raise ChildError(msg)
    return Ran(seconds, cpu, peak / 1e6, output)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(child: subprocess.Popen[bytes]) -> int:
    root = psutil.Process(child.pid)
    peak = 0
    while child.poll() is None:
        peak = max(peak, _tree_bytes(root))
        time.sleep(_LOOK_SECONDS)
    return peak


def _tree_bytes(root: psutil.Process) -> int:
    total = 0
    try:
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in tree:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def python(*arguments: str) -> list[str]:
    """Name a command of this very Python."""
    return [sys.executable, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return the caller's environment without settings of Bentley's, Airflow's or the tools'.

    Bytecode is written: without it every process spends seconds on imports.
    """
    own = ("BENTLEY_", "AIRFLOW", "MLFLOW_", "AIRBYTE_", "KNIME_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(own) and name != "PYTHONDONTWRITEBYTECODE"
    }
    return kept | {"NO_PROXY": "127.0.0.1,localhost"} | more


def answer(ran: Ran) -> Any:
    """Read what a child printed as JSON."""
    return json.loads(ran.output)
