"""Notes when each task is about to run its first line, in the task's own process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


@hookimpl
def on_task_instance_running(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """Note the task and the time; its DAG file is parsed and its arguments are there."""
    now = time.time()
    path = Path(os.environ["BENCH_FIRST_LINES"])
    with path.open("a", encoding="utf-8") as notes:
        notes.write(f"{task_instance.dag_id} {task_instance.run_id} {now}\n")


class FirstLine(AirflowPlugin):
    """Makes this module a listener."""

    name = "bench_first_line"
    listeners = [sys.modules[__name__]]  # noqa: RUF012 - Airflow reads a plain list
