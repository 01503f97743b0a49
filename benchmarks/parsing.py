"""How much our DAG files add to the import of Airflow that every parse begins with."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import harness
from harness import ROOT, Context, Figure, Goal

GOAL = Goal(1.2)


def measure(context: Context) -> Iterator[Figure]:
    """Import in fresh processes; their own CPU time is counted, from the first import on.

    An import is all computing, so on a machine of one's own this is the time it takes; beside
    other work it is the part of that time that the import owns.
    """
    repeats = 5 if context.quick else 21
    env = harness.environment(
        AIRFLOW_HOME=str(context.fresh("airflow")), AIRFLOW__CORE__LOAD_EXAMPLES="False"
    )
    ways = {name: partial(_once, name, env, context.folder) for name in ("import", "parse")}
    for way in ways.values():
        way()  # the first run writes bytecode and fills the file cache
    found = harness.alternate(ways, repeats, context.say)
    yield Figure(
        what=f"parse the {len(_files())} files of dags/",
        unit="s",
        ours=found["parse"],
        peer_name="import airflow.sdk",
        peer=found["import"],
        ratio=found["parse"] / found["import"],
        goal=GOAL,
        runs=repeats,
    )


def _once(what: str, env: dict[str, str], folder: Path) -> float:
    ran = harness.run(harness.python(__file__, what), env, folder)
    return float(ran.output.splitlines()[-1])


def _files() -> list[Path]:
    return sorted((ROOT / "dags").glob("*.py"))


def _import_all(*, dags: bool) -> float:
    """Import as Airflow's parser does: plugins/ and dags/ are on the path, files go by path."""
    sys.path[:0] = [str(ROOT / "plugins"), str(ROOT / "dags")]
    start = time.process_time()
    import airflow.sdk  # noqa: F401, PLC0415

    for path in _files() if dags else ():
        spec = spec_from_file_location(f"parsed_{path.stem}", path)
        if spec is None or spec.loader is None:
            msg = f"{path} can't be imported"
            raise ImportError(msg)
        module = module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return time.process_time() - start


if __name__ == "__main__":
    print(_import_all(dags=sys.argv[1] == "parse"))
