"""Measures what issue and docs promise: `make bench`, or one subject of it by `--only`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from harness import Context, Figure
from rich.console import Console
from rich.table import Table

SUBJECTS = {
    "parse": ("parsing", "parse time of the DAG files"),
    "latency": ("latency", "from an asset event to the consumer's first line"),
    "write": ("writing", "bars into the database"),
    "backfill": ("backfilling", "history from archives into the database"),
    "scale": ("scaling", "history from archives, ever more of it: time and memory"),
    "read": ("reading", "bars out of the database, as floats"),
    "stages": ("stages", "time and memory of each stage by the number of bars"),
}
_WIDTH = 80
_PACKAGES = ("apache-airflow", "airbyte-cdk", "mlflow", "polars", "pandas", "sqlalchemy")


def main() -> int:
    """Run the subjects asked for; exit 0 when each could be measured, whatever the figures."""
    asked = _arguments()
    out, err = Console(width=_WIDTH), Console(stderr=True, width=_WIDTH)
    machine = _machine()
    results: dict[str, list[Figure]] = {}
    if not asked.json:
        out.print(_describe(machine))
    with tempfile.TemporaryDirectory(prefix="bentley-bench-") as folder:
        for name in asked.only or SUBJECTS:
            module, about = SUBJECTS[name]
            with err.status(about) as status:
                context = Context(asked.quick, _teller(status, err, about), Path(folder))
                results[name] = list(_measured(import_module(module).measure, context))
            if not asked.json:
                out.print(_table(about, results[name]))
    if asked.json:
        found = {name: [one.to_dict() for one in rows] for name, rows in results.items()}
        print(json.dumps({"machine": machine | _load(), "results": found}, indent=2))
    else:
        out.print(_verdict(results))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed and memory, beside the usual ways.")
    subjects = "; ".join(f"{name}: {about}" for name, (_, about) in SUBJECTS.items())
    parser.add_argument(
        "--only", action="append", choices=SUBJECTS, metavar="NAME", help=f"{subjects}."
    )
    parser.add_argument("--quick", action="store_true", help="Small and coarse, to try it out.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    return parser.parse_args()


def _measured(measure: Callable[[Context], Iterator[Figure]], context: Context) -> Iterator[Figure]:
    start = time.perf_counter()
    yield from measure(context)
    context.say(f"done in {time.perf_counter() - start:.0f} s")


def _teller(status: Any, console: Console, about: str) -> Callable[[str], None]:
    """Show progress in place on a terminal, and line by line in a log."""

    def say(text: str) -> None:
        if console.is_terminal:
            status.update(f"{about}: {text}")
        else:
            console.print(f"{about}: {text}", soft_wrap=True)

    return say


def _machine() -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "cpu": _cpu(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        **_load(),
    }


def _load() -> dict[str, float]:
    return {"load": round(os.getloadavg()[0], 1)}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _describe(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {machine[name]}" for name in _PACKAGES)
    return (
        f"{machine['date']} UTC, {machine['cores']} x {machine['cpu']}, {machine['memory_gb']} GB, "
        f"{machine['system']}, load {machine['load']}\nPython {machine['python']}, {packages}\n"
    )


def _table(about: str, figures: list[Figure]) -> Table:
    table = Table(title=about, title_justify="left", width=_WIDTH, pad_edge=False)
    table.add_column("what")
    for heading in ("ours", "beside it", "ratio", "goal"):
        table.add_column(heading, justify="right", no_wrap=heading != "beside it")
    for one in figures:
        beside = "" if one.peer is None else f"{one.peer_name} {_number(one.peer, one.unit)}"
        mark = {True: "", False: " missed", None: ""}[one.held]
        table.add_row(
            one.what,
            _number(one.ours, one.unit),
            beside,
            "" if one.ratio is None else f"{one.ratio:.2f}",
            "" if one.goal is None else f"{one.goal}{mark}",
        )
    return table


def _number(value: float, unit: str) -> str:
    if unit == "bars/s":
        return f"{value / 1000:,.0f}k/s"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _verdict(results: dict[str, list[Figure]]) -> str:
    judged = [one for rows in results.values() for one in rows if one.held is not None]
    held = sum(one.held is True for one in judged)
    return f"{held} of {len(judged)} goals held; load at the end {_load()['load']}"


if __name__ == "__main__":
    sys.exit(main())
